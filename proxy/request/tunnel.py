"""Rules for a switch of protocols (status 101), after which an exchange passes bytes unchanged in
both directions until both sides have ended. `Exchange` calls them."""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.response import ResponseHead

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

CLOSING: Final = 2.0
"""Seconds that a client gets to answer the close frame that ends its WebSocket."""
HALF_CLOSED: Final = 60.0
"""Seconds without traffic after which a tunnel ends if one of its sides has ended."""


def was_requested(request: RequestHead, response: ResponseHead) -> bool:
    """Return whether the request asked for all protocols that the response switches to."""
    offered = {name.lower() for name in request.upgrade}
    return bool(response.upgrade) and offered.issuperset(response.upgrade)


def is_websocket(response: ResponseHead) -> bool:
    """Return whether a response with status 101 begins a WebSocket."""
    return [name.lower() for name in response.upgrade] == [b"websocket"]


def idle_timeout(exchange: "Exchange") -> float:
    """Return the seconds without traffic after which the tunnel ends."""
    return HALF_CLOSED if exchange.half_finished else exchange.service.tunnel_timeout
