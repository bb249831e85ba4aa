"""Heads for the next hop: what this proxy takes out of a message and what it adds.

Only what must change is touched: the usual request goes on as the bytes that it came as, with a
few lines after them.
"""

import json
from typing import Final

from proxy.http1 import fields
from proxy.http1.fields import split_field
from proxy.http1.framing import CHUNKED
from proxy.http1.request import RequestHead, find_field, via_line
from proxy.http1.response import ResponseHead

CRLF: Final = b"\r\n"
REASONS: Final = {
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
ALLOW: Final = b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE\r\n"
"""What a 405 has to say: methods beside CONNECT, of which any other is passed on too."""


def forwarded_lines(address: bytes, scheme: bytes, host: bytes) -> bytes:
    """The fields that tell the origin who asked, for a client that is not a trusted proxy."""
    asked = b"X-Forwarded-Host: %b\r\n" % host if host else b""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%bForwarded: %b\r\n" % (
        address,
        scheme,
        asked,
        _hop(address, scheme, host),
    )


def extend_forwarded(head: RequestHead, address: bytes, scheme: bytes, host: bytes) -> bytes:
    """The same for a request that came through a trusted proxy: what it said is kept, and the
    trusted proxy's own address is added to the chains."""
    known = head.forwarded
    chain = find_field(known, b"x-forwarded-for")
    out = b"X-Forwarded-For: " + (chain + b", " if chain else b"") + address + CRLF
    out += b"X-Forwarded-Proto: " + (find_field(known, b"x-forwarded-proto") or scheme) + CRLF
    asked = find_field(known, b"x-forwarded-host") or host
    if asked:
        out += b"X-Forwarded-Host: " + asked + CRLF
    hops = find_field(known, b"forwarded")
    out += b"Forwarded: " + (hops + b", " if hops else b"") + _hop(address, scheme, host) + CRLF
    rest = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
    for line in known:
        if split_field(line)[0] not in rest:
            out += line + CRLF
    return out


def _hop(address: bytes, scheme: bytes, host: bytes) -> bytes:
    """One element of a Forwarded field; a client that named no host has none in it."""
    named = b"host=%b;" % _quoted(host) if host else b""
    return b"for=%b;%bproto=%b" % (_node(address), named, scheme)


def _node(address: bytes) -> bytes:
    """An address as a node of a Forwarded field (RFC 7239, section 6)."""
    if b":" in address:
        return b'"[' + address + b']"'
    return address


def _quoted(host: bytes) -> bytes:
    return host if host and host.translate(fields.NOT_TOKEN) == host else b'"' + host + b'"'


def host_line(host: str, port: int) -> bytes:
    """The Host field for a request of HTTP/1.0 that had none, by where it goes."""
    name = f"[{host}]" if ":" in host else host
    return b"Host: %b:%d\r\n" % (name.encode(), port)


def build_request_head(
    head: RequestHead, added: bytes, edited: list[bytes] | None, target: bytes
) -> bytes:
    """The head for the origin. `added` are whole lines; `edited` replaces the field lines where
    a route edits them; `target` is what the origin is asked for."""
    framed = b""
    if head.length == CHUNKED:
        framed = b"Transfer-Encoding: chunked\r\n"
    elif head.length and any(line[:15].lower() == b"content-length:" for line in head.drop):
        framed = b"Content-Length: %d\r\n" % head.length
    if head.upgrade:
        framed += b"Connection: Upgrade\r\nUpgrade: " + b", ".join(head.upgrade) + CRLF
    if head.expect:
        framed += b"Expect: 100-continue\r\n"
    if head.max_forwards > 0:
        framed += b"Max-Forwards: %d\r\n" % (head.max_forwards - 1)
    if edited is None and head.request_line_unchanged and target == head.target:
        raw = head.raw
        if head.drop or head.forwarded:
            raw += CRLF
            for line in head.drop + head.forwarded:
                raw = raw.replace(CRLF + line + CRLF, CRLF, 1)
            return b"".join((raw, framed, added))
        return b"".join((raw, CRLF, framed, added))
    start = head.method + b" " + target + b" HTTP/1.1"
    lines = head.lines if edited is None else edited
    gone = {*head.drop, *head.forwarded}
    kept = [line for line in lines if line not in gone]
    return b"".join((CRLF.join([start, *kept]), CRLF, framed, added))


def build_response_head(
    head: ResponseHead, *, chunked: bool, connection: bytes, extra: bytes, edited: bytes | None
) -> bytes:
    """The head for a client that is not the usual one. `connection` and `extra` are whole lines;
    `edited` replaces what is kept of the origin's head where a route edits it."""
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    kept = head.kept_head if edited is None else edited
    return b"".join((kept, framing, connection, extra, via_line(http10=head.http10), CRLF))


def edit_fields(
    lines: list[bytes],
    *,
    put: tuple[tuple[bytes, bytes], ...],
    add: tuple[tuple[bytes, bytes], ...],
    remove: frozenset[bytes],
) -> list[bytes]:
    """Field lines with some replaced, added and removed; `remove` names those to be taken out,
    the replaced ones included, in lower case."""
    kept = [line for line in lines if line.partition(b":")[0].lower() not in remove]
    kept += [name + b": " + value for name, value in put + add]
    return kept


def build_response(
    status: int,
    reason: str,
    *,
    request_id: bytes = b"",
    as_json: bool = False,
    bodyless: bool = False,
    close: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A whole response of the proxy's own. `extra` are further field lines."""
    phrase = REASONS.get(status, b"Error")
    if as_json:
        content = b"application/json"
        said = {"status": status, "error": phrase.decode(), "reason": reason}
        if request_id:
            said["request_id"] = request_id.decode("latin-1")
        body = json.dumps(said).encode() + b"\n"
    else:
        content = b"text/plain; charset=utf-8"
        body = b"%d %b: %b\n" % (status, phrase, reason.encode())
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
            % (status, phrase, content, len(body)),
            b"X-Request-Id: " + request_id + CRLF if request_id else b"",
            extra,
            b"Connection: close\r\n" if close else b"",
            CRLF,
            b"" if bodyless else body,
        )
    )
