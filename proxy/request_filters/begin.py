"""Starts the filters that take part in an exchange.

`DataPlane.begin_filters` calls it for each request of a route with filters, once its route and
service are known and before it counts as load of the service.
"""

import time
from typing import TYPE_CHECKING, Final

from proxy.request_filters.compression import CompressingClient

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

REQUEST_START: Final = b"X-Request-Start"


def begin_filters(exchange: "Exchange", delay: float) -> bool:
    """Start the filters of the exchange's route. Return whether they hold it: then they call
    `Exchange.proceed` with `delay`, or end it, later."""
    del delay
    route, head = exchange.route, exchange.head
    if route is None or route.filters is None:
        return False
    filters = route.filters
    if filters.request_start:
        _add_request_start(exchange)
    if filters.compression is not None and head.upgrade == () and not head.http10:
        exchange.replace_client(CompressingClient(exchange.client, filters.compression, head))
    return False


def _add_request_start(exchange: "Exchange") -> None:
    """Name the time at which the request arrived, unless a trusted proxy did."""
    client, plane = exchange.client, exchange.plane
    trusted = plane.routing.trusted.has_peer(client.peer, client.listener.address)
    if trusted and exchange.head.field(REQUEST_START.lower()) is not None:
        return
    arrived = time.time() - (plane.clock() - exchange.started)
    exchange.put_request_field(REQUEST_START, b"t=%.3f" % arrived)
