"""HTTP/2 requests in the form of HTTP/1.1, the one form that routes and policies see. Pure.

`proxy.http2_downstream` translates the fields of each request to a head, which the parser of
`proxy.http1` reads like any other. So a request has the same meaning in both versions. A request
that HTTP/2 forbids, or that could be read in two ways, is refused (RFC 9113, section 8), whether or
not the codec refuses it too.
"""

from collections.abc import Callable, Sequence
from typing import Final

from proxy.http1.fields import (
    NOT_IN_TRAILERS,
    NOT_TOKEN,
    NOT_VALUE,
    NOT_VISIBLE,
    BadMessage,
    check_host,
)
from proxy.http1.framing import is_same_authority

Field = tuple[bytes, bytes]
"""Name and value."""
_KNOWN_NAMES: Final = frozenset(
    (
        b"accept accept-charset accept-encoding accept-language access-control-request-headers "
        b"access-control-request-method authorization cache-control content-encoding "
        b"content-language content-type date dnt from grpc-accept-encoding grpc-encoding "
        b"grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since "
        b"origin pragma priority range referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform "
        b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user traceparent tracestate "
        b"upgrade-insecure-requests user-agent via x-forwarded-for x-forwarded-host "
        b"x-forwarded-proto x-request-id x-requested-with"
    ).split()
)
"""Names that need no check and have no meaning for the translation."""
_PSEUDO_FIELDS: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Fields of a connection of HTTP/1.1, which HTTP/2 forbids (RFC 9113, section 8.2.2)."""
_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WEBSOCKET: Final = b"websocket"
"""The one protocol of extended CONNECT that is translated (RFC 8441)."""
_WEBSOCKET_FIELDS: Final = frozenset((b"sec-websocket-key", b"sec-websocket-accept"))
"""Fields of the handshake of HTTP/1.1; over HTTP/2 they have no meaning."""
_BLANKS: Final = b" \t"
_PATH: Final = b":path"
MAX_MISSES: Final = 16
"""Requests in a row that differ from the one before, after which no more are compared."""


class RequestTranslator:
    """Translates the requests of one connection, like `translate_request`. Most of them differ from
    the one before in their path alone: then the path alone is checked."""

    __slots__ = ("_after", "_before", "_complete", "_first", "_misses", "_path_at", "_rest")

    def __init__(self) -> None:
        self._before: tuple[Field, ...] = ()
        self._after: tuple[Field, ...] = ()
        self._complete = False
        self._path_at = -1
        self._first = b""
        self._rest = b""
        self._misses = 0

    def translate(
        self, fields: tuple[Field, ...], complete: bool, make_key: Callable[[], bytes]
    ) -> bytes:
        """Return what `translate_request` returns. Raises BadMessage."""
        at = self._path_at
        if at >= 0 and at < len(fields) and complete == self._complete:
            name, path = fields[at]
            if (
                name == _PATH
                and fields[at + 1 :] == self._after
                and fields[:at] == self._before
                and path[:1] == b"/"
                and b"#" not in path
                and path.translate(NOT_VISIBLE) == path
            ):
                self._misses = 0
                return self._first + path + self._rest
        raw = translate_request(fields, complete, make_key)
        if self._misses < MAX_MISSES:
            self._misses += 1
            self._learn(fields, complete, raw)
        return raw

    def _learn(self, fields: tuple[Field, ...], complete: bool, raw: bytes) -> None:
        """Remember a request that is valid."""
        self._path_at = -1
        for index, (name, value) in enumerate(fields):
            if name == b":protocol":
                # Each WebSocket has another key.
                self._path_at = -1
                return
            if name == _PATH:
                self._path_at = index
                end = raw.index(b" ") + 1
                self._first, self._rest = raw[:end], raw[end + len(value) :]
        at = self._path_at
        self._complete = complete
        self._before, self._after = fields[:at], fields[at + 1 :]


def translate_request(
    fields: Sequence[Field], complete: bool, make_key: Callable[[], bytes]
) -> bytes:
    """Return the head of a request of HTTP/1.1, without the empty line. Raises BadMessage.

    `complete`: no body follows. `make_key` returns the key of a WebSocket handshake, for an
    extended CONNECT, which becomes a GET with Upgrade. A body without Content-Length is to be sent
    in chunks.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    cookies: list[bytes] = []
    host: bytes | None = None
    length: bytes | None = None
    for name, value in fields:
        if name[:1] == b":":
            if lines or cookies or host is not None or name in pseudo:
                raise BadMessage(400, "a pseudo-header field that is repeated or too late")
            if name not in _PSEUDO_FIELDS:
                raise BadMessage(400, "an unknown pseudo-header field")
            pseudo[name] = value
            continue
        if value.strip(_BLANKS) != value:
            raise BadMessage(400, "a header field value with blanks around it")
        if name not in _KNOWN_NAMES:
            if name == b"cookie":
                # Clients may send it in parts (RFC 9113, section 8.2.3).
                cookies.append(value)
                continue
            if name == b"host":
                if host is not None:
                    raise BadMessage(400, "more than one Host")
                host = value
                continue
            if name == b"content-length":
                if length is not None:
                    raise BadMessage(400, "more than one Content-Length")
                length = value
            else:
                _check_field(name, value)
        lines.append(name + b": " + value)
    start = _start_line(pseudo, complete)
    authority = _authority(pseudo, host)
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    if b":protocol" in pseudo:
        lines = _websocket_lines(pseudo, lines, make_key)
    elif length is None:
        if not complete:
            lines.append(b"transfer-encoding: chunked")
    elif complete and length.strip(b"0"):
        raise BadMessage(400, "a Content-Length without a body")
    raw = b"\r\n".join((start, b"host: " + authority, *lines))
    if raw.count(b"\r") != len(lines) + 1 or raw.count(b"\n") != len(lines) + 1:
        raise BadMessage(400, "a control byte in a header field")
    return raw


def _check_field(name: bytes, value: bytes) -> None:
    """Check a field whose name is not among the usual ones. Raises BadMessage."""
    if not name or name.translate(NOT_TOKEN) != name or name.translate(None, _UPPER) != name:
        raise BadMessage(400, "a malformed header field name")
    if name in _CONNECTION_FIELDS:
        raise BadMessage(400, "a field that only connections of HTTP/1.1 have")
    if name == b"te" and value.lower() != b"trailers":
        raise BadMessage(400, "a TE other than trailers")


def _start_line(pseudo: dict[bytes, bytes], complete: bool) -> bytes:
    """Return the request line. Raises BadMessage."""
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not method or method.translate(NOT_TOKEN) != method:
        raise BadMessage(400, "a malformed method")
    if method == b"CONNECT":
        if b":protocol" not in pseudo:
            raise BadMessage(405, "CONNECT is not supported")
        if pseudo[b":protocol"].lower() != _WEBSOCKET:
            raise BadMessage(501, "an extended CONNECT for a protocol that is not supported")
        if complete:
            raise BadMessage(400, "a WebSocket that has ended")
        method = b"GET"
    elif b":protocol" in pseudo:
        raise BadMessage(400, "a protocol without CONNECT")
    if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise BadMessage(400, "an unknown scheme")
    if path.translate(NOT_VISIBLE) != path:
        raise BadMessage(400, "a byte in the target that must be percent-encoded")
    if path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS"):
        raise BadMessage(400, "a malformed target")
    if b"#" in path:
        raise BadMessage(400, "a target with a fragment")
    return method + b" " + path + b" HTTP/1.1"


def _authority(pseudo: dict[bytes, bytes], host: bytes | None) -> bytes:
    """Return the value of Host. Raises BadMessage if the request does not name one host."""
    authority = pseudo.get(b":authority")
    if authority is None:
        authority = host
    elif host is not None and not is_same_authority(pseudo[b":scheme"].lower(), authority, host):
        raise BadMessage(400, "a Host that contradicts the authority")
    if not authority:
        raise BadMessage(400, "no Host")
    check_host(authority)
    return authority


def _websocket_lines(
    pseudo: dict[bytes, bytes], lines: list[bytes], make_key: Callable[[], bytes]
) -> list[bytes]:
    """Return the field lines with those of a WebSocket handshake. Raises BadMessage."""
    kept: list[bytes] = []
    for line in lines:
        name = line[: line.find(b":")]
        if name == b"content-length":
            raise BadMessage(400, "a Content-Length in a CONNECT request")
        if name not in _WEBSOCKET_FIELDS:
            kept.append(line)
    kept.append(b"connection: Upgrade")
    kept.append(b"upgrade: " + pseudo[b":protocol"])
    kept.append(b"sec-websocket-key: " + make_key())
    return kept


def translate_trailers(fields: Sequence[Field]) -> bytes:
    """Return the field lines to send behind the body. Raises BadMessage.

    As in HTTP/1.1, fields that frame, route or authenticate a message are dropped.
    """
    lines: list[bytes] = []
    for name, value in fields:
        if name not in _KNOWN_NAMES:
            _check_field(name, value)
        if value.strip(_BLANKS) != value or value.translate(NOT_VALUE) != value:
            raise BadMessage(400, "a malformed trailer field")
        if name.replace(b"_", b"-") not in NOT_IN_TRAILERS:
            lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)
