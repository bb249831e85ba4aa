"""Starts the filters that take part in an exchange.

`DataPlane.begin_filters` calls it for each request of a route with filters, once its route and
service are known and before it counts as load of the service: a request that is refused here
neither wakes nor scales it.
"""

import functools
import time
from typing import TYPE_CHECKING, Final

from proxy.filters.credentials import USER_FIELD, parse_credentials
from proxy.filters.subrequest import normalize
from proxy.http1.request import END
from proxy.request import failure
from proxy.request.phases import FIRST
from proxy.request.resolve import RequestRefused
from proxy.request.sinks import NEVER
from proxy.request_filters.compression import CompressingClient

if TYPE_CHECKING:
    from proxy.filters.compiled import CompiledFilters
    from proxy.filters.subrequest import Answer
    from proxy.request.exchange import Exchange
    from proxy.request_filters.basic_auth import PasswordChecks

REQUEST_START: Final = b"X-Request-Start"
_RETRY: Final = b"Retry-After: 1\r\n"


@functools.cache
def password_checks() -> "PasswordChecks":
    """Return the checks of this worker."""
    from proxy.request_filters.basic_auth import PasswordChecks

    return PasswordChecks()


def begin_filters(exchange: "Exchange", delay: float) -> bool:
    """Start the filters of the exchange's route. Return whether they hold it: then they call
    `Exchange.proceed` with `delay`, or end it, at once or later."""
    route, head = exchange.route, exchange.head
    if route is None or route.filters is None:
        return False
    filters = route.filters
    if filters.request_start:
        _add_request_start(exchange)
    if filters.compression is not None and not head.upgrade and not head.http10:
        exchange.replace_client(CompressingClient(exchange.client, filters.compression, head))
    if filters.passwords is not None:
        return _check_password(exchange, filters, delay)
    if filters.config.forward_auth is not None:
        _ask(exchange, filters, delay)
        return True
    return False


def _add_request_start(exchange: "Exchange") -> None:
    """Name the time at which the request arrived, unless a trusted proxy did."""
    client, plane = exchange.client, exchange.plane
    trusted = plane.routing.trusted.has_peer(client.peer, client.listener.address)
    if trusted and exchange.head.field(REQUEST_START.lower()) is not None:
        return
    arrived = time.time() - (plane.clock() - exchange.started)
    exchange.put_request_field(REQUEST_START, b"t=%.3f" % arrived)


def _check_password(exchange: "Exchange", filters: "CompiledFilters", delay: float) -> bool:
    """Check the credentials of a request. Return whether it is held or has ended."""
    table = filters.passwords
    assert table is not None
    given = parse_credentials(exchange.head.field(b"authorization"))
    if given is None:
        exchange.refuse(RequestRefused(failure.NO_PASSWORD, extra=table.challenge))
        return True
    user = given.user

    def let_pass() -> bool:
        exchange.remove_request_fields(frozenset((b"authorization",)))
        exchange.put_request_field(USER_FIELD, user)
        if filters.config.forward_auth is None:
            return False
        _ask(exchange, filters, delay)
        return True

    def finish(right: bool) -> None:
        if exchange.phase != FIRST:
            return  # the client has gone
        if not right:
            exchange.refuse(RequestRefused(failure.NO_PASSWORD, extra=table.challenge))
        elif not let_pass():
            exchange.proceed(delay)

    if password_checks().is_remembered(table, given):
        return let_pass()
    exchange.set_deadline(NEVER)
    if not password_checks().check(exchange.plane.loop, table, given, finish):
        exchange.refuse(RequestRefused(failure.PASSWORDS_BUSY, extra=_RETRY))
    return True


def _ask(exchange: "Exchange", filters: "CompiledFilters", delay: float) -> None:
    """Ask the service that decides about a request of the route."""
    config = filters.config.forward_auth
    assert config is not None
    service = exchange.plane.routing.services.get(config.service)
    if service is None:
        exchange.refuse(RequestRefused(failure.NOT_DECIDED, extra=_RETRY))
        return

    def decided(answer: "Answer | None") -> None:
        if exchange.phase != FIRST:
            return  # the client has gone
        if answer is None:
            exchange.refuse(RequestRefused(failure.NOT_DECIDED, extra=_RETRY))
        elif not answer.passes:
            head, end, body = answer.response().partition(END)
            body = b"" if exchange.head.method == b"HEAD" else body
            exchange.answer(failure.FORWARD_AUTH, answer.status, head + end, body)
        else:
            for name in config.response_fields:
                field = name.encode()
                value = answer.find_all(field.lower())
                if value is None:
                    exchange.remove_request_fields(frozenset((normalize(field),)))
                else:
                    exchange.put_request_field(field, value)
            exchange.proceed(delay)

    exchange.set_deadline(NEVER)
    from proxy.request_filters import forward_auth

    forward_auth.ask(exchange, config, service, decided)
