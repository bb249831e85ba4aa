"""The heads that an exchange sends: the request's head for the endpoint, the response's head for
the client. `Exchange` and the connections of clients call these functions; they change nothing."""

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from proxy.http1 import rewrite
from proxy.http1.request import END, VIA, VIA_1_0
from proxy.http1.response import ResponseHead
from proxy.http1.rewrite import CRLF, edit_fields, host_line
from proxy.http2.grpc import is_grpc
from proxy.request import tracing
from proxy.state.routing_table import CompiledEdits
from proxy.tls.session_info import TlsSession

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

_SAFE: Final = "".join([chr(code) for code in range(0x21, 0x7F) if chr(code) not in '";,\\'])
"""Characters of URIs and host names that end no element of X-Forwarded-Client-Cert."""


def request_head(exchange: "Exchange") -> bytes:
    """Return the request's head for the picked endpoint. The request id and the trace of the
    exchange are known already."""
    head, route = exchange.head, exchange.route
    own_lines = b"" if head.has_id else b"X-Request-Id: %b\r\n" % exchange.request_id
    replaced: frozenset[bytes] = frozenset()
    if exchange.service.traces:
        line, replaced = tracing.header_line(exchange)
        own_lines += line
    edited = None
    if route is not None and route.request_edits is not None:
        edits = route.request_edits
        edited = edit_fields(head.lines, put=edits.put, add=edits.add, remove=edits.remove)
        if exchange.own_removed:
            edited = _remove_fields(edited, exchange.own_removed)
            # Not among the client's lines, of which it could have some removed.
            own_lines += b"".join([b"%b: %b\r\n" % field for field in exchange.own_fields])
    elif head.upstream_head and exchange.target is head.target and not replaced:
        forwarded = exchange.client.forwarded_lines(head)
        return b"".join((head.upstream_head, CRLF, forwarded, own_lines, CRLF))
    if replaced:
        lines = edited if edited is not None else head.lines
        edited = edit_fields(lines, put=(), add=(), remove=replaced)
    host = b""
    if head.host is None:
        assert exchange.endpoint is not None
        where = exchange.endpoint.endpoint
        host = host_line(where.host or "localhost", where.port)
    forwarded = exchange.client.forwarded_lines(head)
    if head.http10 and forwarded.endswith(VIA):
        forwarded = forwarded.removesuffix(VIA) + VIA_1_0
    if route is not None and route.stripped_prefix and exchange.target is not head.target:
        forwarded = rewrite.add_forwarded_prefix(forwarded, route.stripped_prefix)
    added = b"%b%b%b\r\n" % (host, forwarded, own_lines)
    return rewrite.build_request_head(head, added, edited, exchange.target)


def _remove_fields(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return field lines without those of `names`, in which `-` also means `_`."""
    return [
        line for line in lines if line.partition(b":")[0].lower().replace(b"_", b"-") not in names
    ]


def response_head(exchange: "Exchange", head: ResponseHead, *, chunked: bool) -> bytes:
    """Return the response's head for the client. `chunked` says whether its body goes to the
    client in chunks; `ClientSink.persistent` is final already."""
    connection = b""
    if not exchange.client.persistent:
        connection = b"Connection: close\r\n"
    elif exchange.head.http10:
        connection = b"Connection: keep-alive\r\n"
    return _build_response_head(exchange, head, connection, chunked=chunked)


def switch_head(exchange: "Exchange", head: ResponseHead) -> bytes:
    """Return the head of a switch of protocols (status 101) for the client."""
    connection = b"Connection: Upgrade\r\nUpgrade: " + b", ".join(head.upgrade) + CRLF
    return _build_response_head(exchange, head, connection, chunked=False)


def own_response(exchange: "Exchange", response: bytes) -> bytes:
    """Return a response of the proxy's own with the route's edits and the sticky cookie."""
    route = exchange.route
    if route is not None and route.filters is not None and not is_grpc(exchange.head):
        reason = exchange.failure.reason if exchange.failure is not None else ""
        response = route.filters.edit_own_response(exchange.head, reason, response)
    edits = route.own_response_edits if route is not None else None
    cookie = _cookie_line(exchange)
    policy = _hsts_line(exchange, b"")
    if edits is None and not cookie and not policy:
        return response
    lines, _, body = response.partition(END)
    if edits is not None:
        lines = _edit_head(lines, edits)
    return b"".join((lines, CRLF, policy, cookie, CRLF, body))


def _build_response_head(
    exchange: "Exchange", head: ResponseHead, connection: bytes, *, chunked: bool
) -> bytes:
    edited = None
    if exchange.route is not None and exchange.route.response_edits is not None:
        edited = _edit_head(head.kept_head[:-2], exchange.route.response_edits) + CRLF
        if exchange.route.filters is not None:
            edited = exchange.route.filters.edit_response(exchange.head, edited)
    extra = _hsts_line(exchange, head.kept_head if edited is None else edited)
    extra += _cookie_line(exchange)
    return rewrite.build_response_head(
        head, chunked=chunked, connection=connection, extra=extra, edited=edited
    )


def _edit_head(lines: bytes, edits: CompiledEdits) -> bytes:
    """Return a start line and field lines after a route's edits, without the last CRLF."""
    start, *fields = lines.split(CRLF)
    fields = edit_fields(fields, put=edits.put, add=edits.add, remove=edits.remove)
    return CRLF.join([start, *fields])


def _cookie_line(exchange: "Exchange") -> bytes:
    """Return the line that sets the sticky cookie; empty if there is none to set."""
    if not exchange.sticky_cookie:
        return b""
    secure = b"; Secure" if exchange.client.tls is not None else b""
    attributes = b"; Path=/; HttpOnly; SameSite=Lax" + secure + CRLF
    return b"Set-Cookie: " + exchange.sticky_cookie + attributes


def certificate_line(tls: TlsSession | None) -> bytes:
    """Return the line that names the client's certificate in the form of Envoy; empty without one.
    What an untrusted client sends in this field is removed like all fields about earlier hops."""
    if tls is None or tls.client is None:
        return b""
    client = tls.client
    elements = [f"Hash={client.digest}", f'Subject="{client.subject}"']
    elements += [f"URI={quote(uri, _SAFE)}" for uri in client.uris]
    elements += [f"DNS={quote(name, _SAFE)}" for name in client.names]
    return f"X-Forwarded-Client-Cert: {';'.join(elements)}\r\n".encode()


def _hsts_line(exchange: "Exchange", head: bytes) -> bytes:
    """Return the line by which browsers use TLS only (RFC 6797), if the listener sets it and the
    response does not have its own."""
    client = exchange.client
    tls = client.listener.tls
    if tls is None or not tls.hsts or client.tls is None:
        return b""
    if b"\r\nstrict-transport-security:" in head.lower():
        return b""
    return b"Strict-Transport-Security: " + tls.hsts.encode() + CRLF
