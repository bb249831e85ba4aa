"""The request path of one worker, behind one small door: install snapshots, make protocols,
tell what is busy, report.

The worker process around it opens sockets, speaks to the supervisor and keeps time with it;
nothing outside this module touches connections or endpoint state.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, cast

from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.access_log import AccessLog
from proxy.observe.spans import SpanQueue
from proxy.policy import eject
from proxy.request import connection_pool, dispatch, half_close, mirror
from proxy.request.downstream import Downstream
from proxy.request.exchange import Exchange
from proxy.request.hedge import Hedge
from proxy.request.reporter import Reporter
from proxy.request.upstream import Upstream
from proxy.state.endpoint_state import EndpointState
from proxy.state.head_cache import HeadCache
from proxy.state.routing_table import Routing
from proxy.state.service_state import ServiceState
from proxy.wire.report import Report
from proxy.wire.snapshot import Generation, Listener, Snapshot

TICK: Final = 0.1
LOOK_AROUND: Final = 0.01
LOOKING_SHARE: Final = 20.0
"""One part in so many of a worker's time may go into looking around: with thousands of
endpoints it looks less often."""
_HOUSEKEEPING: Final = 1.0
_LAST_DIGITS: Final = tuple([b"%03x" % number for number in range(0x1000)])
_RECALL_REFRESH: Final = 60.0


def _ignore_busy() -> None:
    """Nobody asked to be told."""


def _ignore_wake(service: str, parked: int) -> None:
    """Nobody asked to be told."""


def _ignore_ejected(service: str, endpoint: str, until: float, cause: str) -> None:
    """Nobody asked to be told."""


class DataPlane:
    """Everything that one worker routes by and every connection that it holds.

    `worker` numbers the process in its reports. Callbacks may be assigned before `install`:
    `on_busy_changed()` each time a draining or vanished endpoint falls to zero in flight,
    `on_wake(service, parked)` when the first request is parked for a service (and the
    2nd, the 4th, the 8th, …), and
    `on_ejected(service, endpoint, until, cause)` with `until` in Unix time. `access_log`
    collects a line a request when it is set, `spans` those of sampled traces; `cells` is this
    worker's row of what the workers share, when they share something.
    """

    def __init__(
        self,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.loop = loop
        self.clock = clock
        self.workers = 1
        self.cells: WorkerRow | None = None
        self.access_log: AccessLog | None = None
        self.spans: SpanQueue | None = None
        self.on_busy_changed: Callable[[], None] = _ignore_busy
        self.on_wake: Callable[[str, int], None] = _ignore_wake
        self.on_ejected: Callable[[str, str, float, str], None] = _ignore_ejected
        self.dice = random.random
        self.now = 0.0
        self.draining = False
        self.mirrored = 0
        self.mirror = mirror.copy
        self.connections: set[Downstream | mirror.DiscardClient] = set()
        self.held: set[Downstream] = set()
        self.services: dict[str, ServiceState] = {}
        self.routing = Routing(Snapshot(Generation()), {}, {})
        self.recall = HeadCache()
        self._reporter = Reporter()
        self._look_timer: asyncio.TimerHandle | None = None
        self._room_timer: asyncio.TimerHandle | None = None
        self._limited: tuple[ServiceState, ...] = ()
        self._leaving: dict[tuple[str, int], EndpointState] = {}
        self._gone: dict[str, ServiceState] = {}
        self._ramping = False
        self._id_prefix = os.urandom(8).hex().encode()
        self._ids = 0
        self._id_head = self._id_prefix + b"0" * 13
        self._timer: asyncio.TimerHandle | None = None
        self._next_housekeeping = 0.0
        self._next_refresh = 0.0
        self._next_sweep = 0.0

    # --- the door

    def install(self, snapshot: Snapshot) -> None:
        """Route by `snapshot` from the next request on; live endpoint state stays, by id."""
        now = self.clock()
        wall = time.time()
        services: dict[str, ServiceState] = {}
        gone: list[EndpointState] = []
        for service in snapshot.services:
            known = self.services.get(service.name) or self._gone.pop(service.name, None)
            state = known or ServiceState(service, self.cells, self.workers)
            gone += state.update(service, now, wall)
            if self.spans is not None:
                state.record_spans()
            services[service.name] = state
        for name, state in self.services.items():
            if name not in services:
                gone += state.retire()
                self._gone[name] = state
        self.services = services
        self.routing = Routing(snapshot, services, self.routing.limiters, self.cells)
        self._ramping = any(service.balance.slow_start for service in snapshot.services)
        for endpoint in gone:
            connection_pool.close_idle(endpoint, float("inf"))
            self._leaving[(endpoint.id, id(endpoint))] = endpoint
            if not endpoint.counters.in_flight:
                endpoint.unshare()
        for state in services.values():
            for endpoint in state.endpoints.values():
                if self.cells is not None:
                    endpoint.share(self.cells)
                if not endpoint.serving:
                    connection_pool.close_idle(endpoint, float("inf"))
            state.bounds.tell()
            if state.waiting:
                dispatch.wake(state, now)
        if self._timer is None:
            self._tick()
            self._look_around()
        self._limited = tuple(state for state in services.values() if state.limited)
        if self._room_timer is None:
            self._look_for_room()

    def protocol_factory(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        """What to give to `loop.create_server` for the sockets of `listener`."""
        return lambda: cast("asyncio.Protocol", Downstream(self, listener))

    def busy(self) -> tuple[str, ...]:
        """Ids of draining or vanished endpoints that still have requests or tunnels here."""
        leaving = {e.id for e in self._leaving.values() if e.counters.in_flight}
        for service in self.services.values():
            for endpoint in service.endpoints.values():
                if not endpoint.serving and endpoint.counters.in_flight:
                    leaving.add(endpoint.id)
        return tuple(sorted(leaving))

    def active(self) -> int:
        """Client connections with a request or a tunnel under way, or an answer on its way
        out; while draining, also those that may yet send one."""
        return sum(
            client.exchange is not None or client.unsent() or (self.draining and client.expected())
            for client in self.connections
        )

    def report(self, start: float, end: float) -> Report:
        """Counts since the last call, over (`start`, `end`] in Unix time."""
        services = (*self.services.values(), *self._gone.values())
        leaving = tuple(self._leaving.values())
        told = self._reporter.report(self, services, leaving, start, end)
        self._forget_gone()
        return told

    def start_drain(self) -> None:
        """End keep-alive: answer with `Connection: close`, close what stays idle."""
        self.draining = True
        for client in tuple(self.connections):
            client.drain()

    def close(self) -> None:
        """Break off every connection and stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        for client in tuple(self.connections):
            client.abort()
        for service in self.services.values():
            for endpoint in service.endpoints.values():
                connection_pool.close_idle(endpoint, float("inf"))

    # --- for the connections

    def connect(self, endpoint: EndpointState, exchange: Exchange | Hedge) -> Upstream:
        """Start opening a connection for an exchange."""
        endpoint.connected(1)
        upstream = Upstream(self, endpoint, exchange)
        upstream.task = self.loop.create_task(connection_pool.dial(self.loop, endpoint, upstream))
        return upstream

    def date_line(self) -> bytes:
        """A Date field for an answer of the proxy's own."""
        return b"Date: %b\r\n" % formatdate(usegmt=True).encode()

    def next_id(self) -> bytes:
        """A request id: 32 hex digits, unique over workers and restarts."""
        number = self._ids = self._ids + 1
        last = number & 0xFFF
        if not last:
            self._id_head = b"%b%013x" % (self._id_prefix, number >> 12)
        return self._id_head + _LAST_DIGITS[last]

    def ejected(self, service: ServiceState, endpoint: EndpointState, cause: str) -> None:
        """Tells that an endpoint was taken out of rotation."""
        until = time.time() + endpoint.health.ejected_until - self.clock()
        self.on_ejected(service.name, endpoint.id, until, cause)

    def endpoint_idle(self, endpoint: EndpointState) -> None:
        """A draining or vanished endpoint has nothing in flight here any more."""
        if (endpoint.id, id(endpoint)) in self._leaving:
            endpoint.unshare()
        self.on_busy_changed()

    def count_refused(self, reason: str) -> None:
        """Counts an answer to what was not known to be for any service."""
        self._reporter.count_refused(reason)

    # --- the clock

    def _tick(self) -> None:
        now = self.now = self.clock()
        self._timer = self.loop.call_later(TICK, self._tick)
        expired = [client for client in self.connections if client.deadline <= now]
        for client in expired:
            client.expired(now)
        if self.workers < 2 and self.cells is not None:
            self._make_room(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING
            self._keep_house(now)

    def _look_around(self) -> None:
        """Takes in what the other workers have in flight."""
        if self.cells is None or self.workers < 2:
            return
        begin = self.clock()
        self.cells.sync()
        for service in self.services.values():
            for endpoint in service.ready:
                endpoint.look_around()
        pause = max(LOOK_AROUND, LOOKING_SHARE * (self.clock() - begin))
        self._look_timer = self.loop.call_later(pause, self._look_around)

    def _look_for_room(self) -> None:
        """The same, as often as can be, for the few services in which it means room."""
        self._room_timer = None
        if self.cells is not None and self.workers > 1 and self._limited:
            self._room_timer = self.loop.call_later(LOOK_AROUND, self._look_for_room)
            self.cells.sync()
            self._make_room(self.clock())

    def _make_room(self, now: float) -> None:
        """What other workers gave back goes to those that wait here, and the other way round."""
        for service in self._limited:
            if service.waiting:
                for endpoint in service.ready:
                    endpoint.look_around()
                dispatch.wake(service, now)
            for endpoint in service.ready:
                if endpoint.idle and service.bounds.in_the_way(endpoint, now):
                    endpoint.idle.pop(0).discard()

    def _keep_house(self, now: float) -> None:
        """What is due about once a second."""
        sweep = now >= self._next_sweep
        wall = time.time()
        self.recall.make_room()
        for client in tuple(self.held):
            # Nothing is read of these, so that the event loop does not tell of their end.
            if half_close.is_reset(client):
                client.abort()
        for service in self.services.values():
            service.answers.refresh()
            for endpoint in service.endpoints.values():
                connection_pool.close_idle(endpoint, now)
            if self._ramping:
                service.apply_ramp(wall)
            if sweep:
                self._judge(service, now)
            if any(endpoint.health.ejected for endpoint in service.ready):
                service.refresh(now)
        if sweep:
            self._next_sweep = now + eject.INTERVAL
        if now >= self._next_refresh:
            self._next_refresh = now + _RECALL_REFRESH
            self.recall.refresh()

    def _judge(self, service: ServiceState, now: float) -> None:
        by_health = {id(state.health): state for state in service.ready}
        peers = [state.health for state in service.ready]
        for health, cause in eject.eject_outliers(service.config.ejection, peers, now):
            service.counters.ejections += 1
            self.ejected(service, by_health[id(health)], cause)
        service.refresh(now)

    def _forget_gone(self) -> None:
        """What left has had its last counts told once nothing of it is under way any more."""
        self._leaving = {k: e for k, e in self._leaving.items() if e.counters.in_flight}
        for name, state in list(self._gone.items()):
            if not state.in_flight:
                state.bounds.release()
                del self._gone[name]
