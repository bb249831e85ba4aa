"""The concurrency limits of one service, held by all workers together without locks.

Each `ServiceState` owns one `ConcurrencyLimits`; `proxy.request.dispatch` asks it before it picks
an endpoint. The numbers are shared through `proxy.ipc.shared_memory`.

A worker first publishes the slot that it wants in its own cells, then adds up the cells of all
workers. If the sum exceeds the limit, it withdraws and waits. So the limit is never exceeded. Two
workers that ask for the last slot at the same moment may both withdraw; they look again 10 ms
later.

The further ports of a service are services too (`ServiceState.ports`), and a limit holds for all of
them together: their numbers are added to each sum.

The worker that sees a free slot first takes it, and that is mostly the worker that freed it. To
keep others from starving, a worker now and then leaves the last slot to a request that has waited
longer at another worker: it takes none for `YIELD` seconds, and every other worker looks for free
slots within that time.
"""

from typing import TYPE_CHECKING, Final

from proxy.policy import admit

if TYPE_CHECKING:
    from proxy.ipc.shared_memory import WorkerRow
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

PATIENCE: Final = 0.1
"""Seconds that a request at another worker must have waited longer to get the last slot. Well
above the 10 ms between two looks, so that workers do not yield to each other all the time."""
NO_LIMIT: Final = 1 << 30
"""Room where nothing limits it: more requests than a worker can have."""
YIELD: Final = 0.025
"""Seconds for which a worker leaves the last slot to others: more than two looks of 10 ms."""


class ConcurrencyLimits:
    """The limits of one service.

    Without a `row` nothing is shared. This is so for a single worker, and for a worker whose row
    is full; the latter keeps to its part of each limit as one of `workers`.
    """

    __slots__ = ("_row", "_service", "_slot", "_yield_next", "_yield_until", "workers")

    def __init__(self, service: "ServiceState", row: "WorkerRow | None", workers: int) -> None:
        self._service = service
        self._slot = row.claim(service.name) if row is not None else -1
        self._row = row if self._slot >= 0 else None
        self.workers = workers
        self._yield_until = 0.0
        self._yield_next = 0.0

    def stop_sharing(self) -> None:
        """Release the shared cells: the service was removed and has no request in flight."""
        if self._row is not None:
            self._row.release(self._slot)
            self._row = None

    def publish(self, more: int = 0) -> None:
        """Publish this worker's requests in flight and in the queue, with `more` added to those
        in flight."""
        row, slot, service = self._row, self._slot, self._service
        if row is None:
            return
        waiting = service.waiting
        row.in_flight[slot] = service.in_flight - len(waiting) + more
        row.held[slot] = len(waiting)
        row.bytes[slot] = service.parked_bytes
        row.latency[slot] = waiting[0].since if waiting else 0.0

    def announce_waiter(self) -> tuple[int, int]:
        """Publish one more waiting request. Return the number of requests that wait at other
        workers or for other ports, and the bytes that those hold."""
        row, slot, ports = self._row, self._slot, self._service.ports
        waiting, held = 0, 0
        if row is not None:
            row.held[slot] = len(self._service.waiting) + 1
            row.sync()
            waiting, held = row.held_elsewhere(slot), row.bytes_elsewhere(slot)
        for port in ports:
            more, more_bytes = port.limits.waiting_everywhere()
            waiting += more
            held += more_bytes
        return waiting, held

    def admits(self, now: float, since: float, more: int) -> bool:
        """Return whether the service may have one more request in flight.

        The request is already counted in the service's `in_flight`; `more` is 1 if it is also in
        the queue. `since` is when it began to wait, infinity for a retry, which must not wait.
        """
        limit = self._local_limit(self._service.config.limits.service_in_flight)
        if not limit:
            return True
        self.publish(more)
        total = self._service.in_flight - len(self._service.waiting) + more
        row = self._row
        if row is not None:
            row.sync()
            total += row.in_flight_elsewhere(self._slot)
        for port in self._service.ports:
            total += port.limits.in_flight_everywhere()
        return total < limit or (total == limit and self._may_take_last_slot(now, since))

    def reserve(self, endpoint: "EndpointState", now: float, since: float) -> bool:
        """Return whether an endpoint may take one more request. The request stays published
        until it starts there or `EndpointState.publish` is called."""
        limits = self._service.config.limits
        limit = self._local_limit(limits.endpoint_in_flight)
        if limit or endpoint.gradient is not None:
            total = endpoint.announce_requests(1)
            # The adaptive limit follows the latency of this port alone.
            room = NO_LIMIT if endpoint.gradient is None else endpoint.gradient.limit - total
            if limit:
                room = min(room, limit - total - self._requests_at_ports(endpoint))
            if room < 0 or (room == 0 and not self._may_take_last_slot(now, since)):
                return False
        limit = self._local_limit(limits.endpoint_connections)
        if limit:
            new = not endpoint.has_connection()
            total = endpoint.announce_connections(int(new))
            total += self._connections_of_ports(endpoint)
            if new and total > limit and self._close_idle_of_ports(endpoint):
                total -= 1
            if new and total > limit:
                return False
            if total >= limit and not self._may_take_last_slot(now, since):
                return False
        return True

    def connections_left(self, endpoint: "EndpointState") -> int:
        """Return how many connections to an endpoint the other workers and ports leave."""
        limit = self._local_limit(self._service.config.limits.endpoint_connections)
        return limit - endpoint.connections_elsewhere() - self._connections_of_ports(endpoint)

    def blocks_another_worker(self, endpoint: "EndpointState", now: float) -> bool:
        """Return whether an idle connection to an endpoint keeps another worker or port, at which
        requests wait, from opening one."""
        row, limit = self._row, self._service.config.limits.endpoint_connections
        if row is None or not limit or (self._service.waiting and now >= self._yield_until):
            return False
        open_elsewhere = endpoint.connections_elsewhere() + self._connections_of_ports(endpoint)
        if endpoint.connections + open_elsewhere < limit:
            return False
        waiting = row.held_elsewhere(self._slot)
        for port in self._service.ports:
            waiting += port.limits.waiting_everywhere()[0]
        return waiting > 0

    def may_have_room(self, endpoint: "EndpointState") -> bool:
        """Return whether an endpoint seems to have a free slot, by the last known numbers of the
        other workers."""
        limits = self._service.config.limits
        adaptive = endpoint.gradient.limit if endpoint.gradient is not None else 0
        if not admit.may_send(limits, endpoint.in_flight, adaptive):
            return False
        if not self._service.ports:
            return endpoint.has_connection() or admit.may_connect(limits, endpoint.connections)
        requests, connections, closable = endpoint.in_flight, endpoint.connections, False
        for port in self._service.ports:
            other = port.endpoints.get(endpoint.id)
            if other is not None:
                requests += other.in_flight
                connections += other.connections
                closable = closable or bool(other.idle)
        if not admit.may_send(limits, requests, 0):
            return False
        return endpoint.has_connection() or closable or admit.may_connect(limits, connections)

    def in_flight_everywhere(self) -> int:
        """Return the requests in flight of all workers, without those in queues. The caller syncs
        the row before."""
        service, row = self._service, self._row
        here = service.in_flight - len(service.waiting)
        return here if row is None else here + row.in_flight_elsewhere(self._slot)

    def waiting_everywhere(self) -> tuple[int, int]:
        """Return the number of requests that wait at all workers, and the bytes that they hold."""
        service, row = self._service, self._row
        waiting, held = len(service.waiting), service.parked_bytes
        if row is not None:
            waiting += row.held_elsewhere(self._slot)
            held += row.bytes_elsewhere(self._slot)
        return waiting, held

    def _requests_at_ports(self, endpoint: "EndpointState") -> int:
        """Return the requests in flight at the other ports of an endpoint."""
        total = 0
        for port in self._service.ports:
            other = port.endpoints.get(endpoint.id)
            if other is not None:
                total += other.requests_everywhere()
        return total

    def _connections_of_ports(self, endpoint: "EndpointState") -> int:
        """Return the connections to the other ports of an endpoint."""
        total = 0
        for port in self._service.ports:
            other = port.endpoints.get(endpoint.id)
            if other is not None:
                total += other.connections + other.connections_elsewhere()
        return total

    def _close_idle_of_ports(self, endpoint: "EndpointState") -> bool:
        """Close an idle connection to another port of an endpoint. Return whether there was one."""
        for port in self._service.ports:
            other = port.endpoints.get(endpoint.id)
            if other is not None and other.idle:
                other.idle.pop(0).discard()
                return True
        return False

    def _local_limit(self, limit: int) -> int:
        """The limit to compare with: the whole one if numbers are shared, else this worker's
        part of it. 0 means none."""
        if self._row is not None or self.workers < 2:
            return limit
        return limit and max(1, limit // self.workers)

    def _may_take_last_slot(self, now: float, since: float) -> bool:
        """Whether this worker may take the last slot for a request that waits since `since`."""
        row = self._row
        if row is None or since == float("inf"):
            return True
        if now < self._yield_until:
            return False
        if now < self._yield_next or row.oldest_wait_elsewhere(self._slot) >= since - PATIENCE:
            return True
        self._yield_until = now + YIELD
        self._yield_next = now + YIELD + PATIENCE
        return False
