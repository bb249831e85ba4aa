"""The heads that an exchange sends on: what its route and its connections make of them."""

from typing import TYPE_CHECKING

from proxy.http1.request import VIA, via_line
from proxy.http1.response import ResponseHead
from proxy.http1.rewrite import (
    CRLF,
    build_request_head,
    build_response_head,
    edit_fields,
    host_line,
)
from proxy.request import tracing

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange


def for_origin(exchange: "Exchange") -> bytes:
    """The request's head as it goes to the endpoint that was picked."""
    head, plan = exchange.head, exchange.plan
    if head.has_id:
        exchange.request_id = head.request_id
        own_id = b""
    else:
        exchange.request_id = exchange.request_id or exchange.plane.next_id()
        own_id = b"X-Request-Id: %b\r\n" % exchange.request_id
    replaced: frozenset[bytes] = frozenset()
    if exchange.service.traces:
        line, replaced = tracing.line(exchange)
        own_id += line
    edited = None
    if plan is not None and plan.request is not None:
        edits = plan.request
        edited = edit_fields(head.lines, put=edits.put, add=edits.add, remove=edits.remove)
    elif head.upstream_head and exchange.target is head.target and not replaced:
        forwarded = exchange.client.forwarded_lines(head)
        return b"".join((head.upstream_head, CRLF, forwarded, VIA, own_id, CRLF))
    if replaced:
        lines = edited if edited is not None else head.lines
        edited = edit_fields(lines, put=(), add=(), remove=replaced)
    host = b""
    if head.host is None:
        assert exchange.endpoint is not None
        where = exchange.endpoint.endpoint
        host = host_line(where.host or "localhost", where.port)
    forwarded = exchange.client.forwarded_lines(head)
    added = b"%b%b%b%b\r\n" % (host, forwarded, via_line(http10=head.http10), own_id)
    return build_request_head(head, added, edited, exchange.target)


def for_client(exchange: "Exchange", head: ResponseHead, *, until_close: bool) -> bytes:
    """The answer's head as it goes to a client that is not the usual one. Settles whether the
    client's connection can go on after it."""
    client, request = exchange.client, exchange.head
    chunked = (head.chunked or until_close) and head.status not in (204, 304)
    if request.http10 and chunked:
        chunked = False
        client.persistent = client.persistent and exchange.bodyless
    if not exchange.request_complete or exchange.plane.draining:
        client.persistent = False
    connection = b""
    if not client.persistent:
        connection = b"Connection: close\r\n"
    elif request.http10:
        connection = b"Connection: keep-alive\r\n"
    extra = b""
    if exchange.sticky:
        extra = b"Set-Cookie: " + exchange.sticky + b"; Path=/; HttpOnly; SameSite=Lax\r\n"
    edited = None
    if exchange.plan is not None and exchange.plan.response is not None:
        edits = exchange.plan.response
        start, *lines = head.kept_head[:-2].split(b"\r\n")
        lines = edit_fields(lines, put=edits.put, add=edits.add, remove=edits.remove)
        edited = b"\r\n".join([start, *lines, b""])
    return build_response_head(
        head, chunked=chunked, connection=connection, extra=extra, edited=edited
    )
