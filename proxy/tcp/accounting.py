"""Counters and access log of TCP sessions.

`TcpSession` calls these functions. A session is counted like a request with method TCP: as a
success once it is connected, because it may last for days, and as a failure if it cannot be. Its
duration says nothing about the endpoint and is in no histogram; the time to connect is.
"""

import time
from typing import TYPE_CHECKING, Final

from proxy.observe.access_log import Entry
from proxy.observe.counters import CONNECTION
from proxy.request.failure import Failure

if TYPE_CHECKING:
    from proxy.state.endpoint_state import EndpointState
    from proxy.tcp.session import TcpSession

CONNECTED: Final = 200
"""The status of a session that was connected, as in nginx's stream module."""


def record_arrival(session: "TcpSession", now: float) -> None:
    """Count a session that begins."""
    service = session.service
    service.counters.arrivals += 1
    service.counters.count_call(session.caller)
    service.in_flight += 1
    service.budget.deposit(now)


def record_connected(session: "TcpSession", endpoint: "EndpointState", now: float) -> None:
    """Count a session that is connected to an endpoint."""
    counters = session.service.counters
    connect = now - session.sent_at
    counters.connect.record(connect)
    counters.count_connection(CONNECTED)
    counters.start_stream(now)
    if session.queue_seconds:
        counters.queue.record(session.queue_seconds)
        counters.queue_seconds += session.queue_seconds
    endpoint.counters.succeeded += 1
    endpoint.counters.latency.record(connect)
    if endpoint.record_connected(connect):
        session.service.refresh(now)


def record_end(session: "TcpSession", now: float) -> None:
    """Count and log a session that has ended."""
    if session.connected_at:
        session.service.counters.end_stream(now)
    _log(session, now)


def record_failure(session: "TcpSession", why: Failure) -> None:
    """Count the failure of a session, connected or not."""
    counters = session.service.counters
    counters.count_failure(why.reason)
    if not session.connected_at:
        counters.count_connection(why.status)


def _log(session: "TcpSession", now: float) -> None:
    plane, why, endpoint = session.plane, session.failure, session.last_endpoint
    status = CONNECTED if why is None or session.connected_at else why.status
    access_log = plane.access_log
    if access_log is None or not access_log.should_log(status, plane.random()):
        return
    connected_at = session.connected_at
    access_log.add(
        Entry(
            time=time.time() - (now - session.started),
            client=session.peer,
            method=CONNECTION.decode(),
            target=session.listener.address,
            version="",
            status=status,
            service=session.service.name,
            endpoint=endpoint.id if endpoint is not None else "",
            revision=endpoint.endpoint.revision if endpoint is not None else "",
            bytes_in=session.bytes_in,
            bytes_out=session.bytes_out,
            total=now - session.started,
            queue=session.queue_seconds,
            connect=connected_at - session.sent_at if connected_at else 0.0,
            retries=session.retries,
            failure=why.reason if why is not None else "",
        )
    )
