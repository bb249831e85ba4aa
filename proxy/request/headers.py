"""The heads that an exchange sends: the request's head for the endpoint, the response's head for
the client. `Exchange` calls both functions; they change nothing."""

from typing import TYPE_CHECKING

from proxy.http1 import rewrite
from proxy.http1.request import VIA, via_line
from proxy.http1.response import ResponseHead
from proxy.http1.rewrite import CRLF, edit_fields, host_line
from proxy.request import tracing

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange


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
    elif head.upstream_head and exchange.target is head.target and not replaced:
        forwarded = exchange.client.forwarded_lines(head)
        return b"".join((head.upstream_head, CRLF, forwarded, VIA, own_lines, CRLF))
    if replaced:
        lines = edited if edited is not None else head.lines
        edited = edit_fields(lines, put=(), add=(), remove=replaced)
    host = b""
    if head.host is None:
        assert exchange.endpoint is not None
        where = exchange.endpoint.endpoint
        host = host_line(where.host or "localhost", where.port)
    forwarded = exchange.client.forwarded_lines(head)
    if route is not None and route.stripped_prefix and exchange.target is not head.target:
        forwarded = rewrite.add_forwarded_prefix(forwarded, route.stripped_prefix)
    added = b"%b%b%b%b\r\n" % (host, forwarded, via_line(http10=head.http10), own_lines)
    return rewrite.build_request_head(head, added, edited, exchange.target)


def response_head(exchange: "Exchange", head: ResponseHead, *, chunked: bool) -> bytes:
    """Return the response's head for the client. `chunked` says whether its body goes to the
    client in chunks; `ClientSink.persistent` is final already."""
    connection = b""
    if not exchange.client.persistent:
        connection = b"Connection: close\r\n"
    elif exchange.head.http10:
        connection = b"Connection: keep-alive\r\n"
    extra = b""
    if exchange.sticky_cookie:
        extra = b"Set-Cookie: " + exchange.sticky_cookie + b"; Path=/; HttpOnly; SameSite=Lax\r\n"
    edited = None
    if exchange.route is not None and exchange.route.response_edits is not None:
        edits = exchange.route.response_edits
        start, *lines = head.kept_head[:-2].split(b"\r\n")
        lines = edit_fields(lines, put=edits.put, add=edits.add, remove=edits.remove)
        edited = b"\r\n".join([start, *lines, b""])
    return rewrite.build_response_head(
        head, chunked=chunked, connection=connection, extra=extra, edited=edited
    )
