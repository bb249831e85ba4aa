"""After a switch of protocols: bytes pass as they are, until both sides have ended."""

from typing import TYPE_CHECKING, Final

from proxy.http1.response import ResponseHead
from proxy.http1.rewrite import build_response_head
from proxy.request import failure
from proxy.request.phases import TUNNEL

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

HALF_CLOSED: Final = 60.0


def opened(exchange: "Exchange", head: ResponseHead) -> bool:
    """The origin switches protocols; False (and an end) when nobody asked it to."""
    asked = {name.lower() for name in exchange.head.upgrade}
    if not head.upgrade or not asked.issuperset(head.upgrade) or not exchange.request_complete:
        exchange.fail(failure.PROTOCOL, "a switch of protocols that was not asked for")
        return False
    now = exchange.plane.clock()
    assert exchange.endpoint is not None
    exchange.status = 101
    exchange.first_byte_at = now
    exchange.endpoint.answered(now - exchange.sent_at, now, exchange.load)
    exchange.phase = TUNNEL
    exchange.last_deadline = 0.0
    lines = b"Connection: Upgrade\r\nUpgrade: " + b", ".join(head.upgrade) + b"\r\n"
    exchange.client.write(
        build_response_head(head, chunked=False, connection=lines, extra=b"", edited=None)
    )
    exchange.until(now + exchange.service.tunnel)
    exchange.client.open_tunnel()
    return True


def to_client(exchange: "Exchange", data: bytes) -> None:
    """Bytes from the origin."""
    exchange.bytes_out += len(data)
    exchange.client.write(data)
    _moved(exchange)


def to_origin(exchange: "Exchange", data: bytes) -> None:
    """Bytes from the client."""
    exchange.bytes_in += len(data)
    if exchange.upstream is not None and exchange.upstream.transport is not None:
        exchange.upstream.transport.write(data)
    _moved(exchange)


def _moved(exchange: "Exchange") -> None:
    quiet = HALF_CLOSED if exchange.half_finished else exchange.service.tunnel
    exchange.until(exchange.plane.now + quiet)


def origin_finished(exchange: "Exchange") -> None:
    """The origin sends no more."""
    exchange.client.finish_tunnel()
    _half(exchange)


def client_finished(exchange: "Exchange") -> None:
    """The client sends no more."""
    if exchange.upstream is not None:
        exchange.upstream.finish()
    _half(exchange)


def _half(exchange: "Exchange") -> None:
    now = exchange.plane.clock()
    if exchange.half_finished:
        exchange.complete(now, reusable=False)
        return
    exchange.half_finished = True
    exchange.until(now + HALF_CLOSED)
