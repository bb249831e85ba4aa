"""Heads for the next hop: remove hop-by-hop fields, add the proxy's own, build answers. Pure.

Called by `proxy.request.headers`, `downstream` and `tunnel`. Only what must change is changed: a
normal request is forwarded as the bytes received, with a few lines appended.
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
    401: b"Unauthorized",
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
    508: b"Loop Detected",
}
ALLOW: Final = b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE\r\n"
"""Allow field of a 405. CONNECT alone is refused; methods that are not listed are forwarded too."""


def forwarded_lines(address: bytes, scheme: bytes, host: bytes) -> bytes:
    """Return the forwarding fields (client, scheme, host) for a client that is not trusted."""
    host_field = b"X-Forwarded-Host: %b\r\n" % host if host else b""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%bForwarded: %b\r\n" % (
        address,
        scheme,
        host_field,
        _forwarded_element(address, scheme, host),
    )


def extend_forwarded(head: RequestHead, address: bytes, scheme: bytes, host: bytes) -> bytes:
    """Return the forwarding fields for a request that came through a trusted proxy.

    Its fields are kept, and its own address is appended to the chains. An empty address, that of a
    Unix socket, is left out of X-Forwarded-For unless it is the only one.
    """
    known = head.forwarded
    chain = find_field(known, b"x-forwarded-for")
    addresses = b", ".join(each for each in (chain, address) if each) or b"unknown"
    out = b"X-Forwarded-For: " + addresses + CRLF
    out += b"X-Forwarded-Proto: " + (find_field(known, b"x-forwarded-proto") or scheme) + CRLF
    forwarded_host = find_field(known, b"x-forwarded-host") or host
    if forwarded_host:
        out += b"X-Forwarded-Host: " + forwarded_host + CRLF
    hops = find_field(known, b"forwarded")
    element = _forwarded_element(address or b"unknown", scheme, host)
    out += b"Forwarded: " + (hops + b", " if hops else b"") + element + CRLF
    done = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
    for line in known:
        if split_field(line)[0] not in done:
            out += line + CRLF
    return out


def add_forwarded_prefix(lines: bytes, prefix: bytes) -> bytes:
    """Return forwarding field lines with X-Forwarded-Prefix: `prefix`, which this hop stripped
    from the path, after those that a trusted proxy stripped."""
    own = lines[:-2].split(CRLF)
    name = b"x-forwarded-prefix"
    known = find_field(own, name) or b""
    if known:
        lines = b"".join(line + CRLF for line in own if split_field(line)[0] != name)
        # Of a list, each hop added what it had stripped.
        known = b"".join(part.strip(b" \t").rstrip(b"/") for part in known.split(b","))
    return b"%bX-Forwarded-Prefix: %b%b\r\n" % (lines, known, prefix)


def _forwarded_element(address: bytes, scheme: bytes, host: bytes) -> bytes:
    """Return one element of a Forwarded field (RFC 7239, section 4); `host` may be empty."""
    host_pair = b"host=%b;" % _quote(host) if host else b""
    return b"for=%b;%bproto=%b" % (_format_node(address), host_pair, scheme)


def _format_node(address: bytes) -> bytes:
    """Return an address as a node of a Forwarded field (RFC 7239, section 6)."""
    if b":" in address:
        return b'"[' + address + b']"'
    return address


def _quote(host: bytes) -> bytes:
    """Return a host as a token if possible, else as a quoted string."""
    return host if host and host.translate(fields.NOT_TOKEN) == host else b'"' + host + b'"'


def host_line(host: str, port: int) -> bytes:
    """Return a Host field with the endpoint's address, for an HTTP/1.0 request without one."""
    name = f"[{host}]" if ":" in host else host
    return b"Host: %b:%d\r\n" % (name.encode(), port)


def build_request_head(
    head: RequestHead, added: bytes, edited: list[bytes] | None, target: bytes
) -> bytes:
    """Build the head for the origin, without the empty line.

    `added` are complete lines. `edited` replaces the field lines if a route edits them. `target`
    is the target for the origin.
    """
    own = b""
    if head.length == CHUNKED:
        own = b"Transfer-Encoding: chunked\r\n"
    elif head.length and any(line[:15].lower() == b"content-length:" for line in head.drop):
        own = b"Content-Length: %d\r\n" % head.length
    if head.upgrade:
        own += b"Connection: Upgrade\r\nUpgrade: " + b", ".join(head.upgrade) + CRLF
    if head.expect:
        own += b"Expect: 100-continue\r\n"
    if head.max_forwards > 0:
        own += b"Max-Forwards: %d\r\n" % (head.max_forwards - 1)
    if edited is None and head.request_line_unchanged and target == head.target:
        raw = head.raw
        if head.drop or head.forwarded:
            raw += CRLF
            for line in head.drop + head.forwarded:
                raw = raw.replace(CRLF + line + CRLF, CRLF, 1)
            return b"".join((raw, own, added))
        return b"".join((raw, CRLF, own, added))
    start = head.method + b" " + target + b" HTTP/1.1"
    lines = head.lines if edited is None else edited
    dropped = {*head.drop, *head.forwarded}
    kept = [line for line in lines if line not in dropped]
    return b"".join((CRLF.join([start, *kept]), CRLF, own, added))


def build_response_head(
    head: ResponseHead, *, chunked: bool, connection: bytes, extra: bytes, edited: bytes | None
) -> bytes:
    """Build the head for a client that cannot get `client_head` as it is.

    `connection` and `extra` are complete lines. `edited` replaces the kept part of the origin's
    head if a route edits it.
    """
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
    """Return field lines after a route's edits.

    `put` and `add` are (name, value). `remove` holds the lower-case names to remove; it includes
    those of `put`.
    """
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
    reason_only: bool = False,
) -> bytes:
    """Build a complete response of the proxy itself. `extra` are complete field lines. With
    `reason_only` the body is the reason and nothing else."""
    phrase = REASONS.get(status, b"Error")
    if reason_only:
        content_type = b"text/plain; charset=utf-8"
        body = reason.encode()
    elif as_json:
        content_type = b"application/json"
        content = {"status": status, "error": phrase.decode(), "reason": reason}
        if request_id:
            content["request_id"] = request_id.decode("latin-1")
        body = json.dumps(content).encode() + b"\n"
    else:
        content_type = b"text/plain; charset=utf-8"
        body = b"%d %b: %b\n" % (status, phrase, reason.encode())
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
            % (status, phrase, content_type, len(body)),
            b"X-Request-Id: " + request_id + CRLF if request_id else b"",
            extra,
            b"Connection: close\r\n" if close else b"",
            CRLF,
            b"" if bodyless else body,
        )
    )
