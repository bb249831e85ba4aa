"""A service's limits, kept by all workers together and without locks.

A worker announces what it is about to take in its own cells, then adds up everybody's: whoever
finds more than the limit takes it back and waits. So the limit is never passed; two that ask for
the last place at one moment may both wait, until they look again a hundredth of a second later.

Places that become free are taken again by the worker that sees it first, which is mostly the one
that freed them. So that no other waits for ever, a worker now and then leaves the last place to a
request that has waited for longer elsewhere: for `YIELD` seconds, in which every other one looks.
"""

from typing import TYPE_CHECKING, Final

from proxy.policy import admit

if TYPE_CHECKING:
    from proxy.ipc.shared_memory import WorkerRow
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

PATIENCE: Final = 0.1
"""So much longer, in seconds, must a request have waited elsewhere."""
YIELD: Final = 0.025


class ConcurrencyLimits:
    """One service's. `row` is None where nothing is shared: for the only worker, and for one
    that got no cells, which keeps to its share of each limit as one of `workers`."""

    __slots__ = ("_row", "_service", "_slot", "_yield_next", "_yield_until", "workers")

    def __init__(self, service: "ServiceState", row: "WorkerRow | None", workers: int) -> None:
        self._service = service
        self._slot = row.claim(service.name) if row is not None else -1
        self._row = row if self._slot >= 0 else None
        self.workers = workers
        self._yield_until = 0.0
        self._yield_next = 0.0

    def release(self) -> None:
        """The service is gone and nothing of it is under way."""
        if self._row is not None:
            self._row.release(self._slot)
            self._row = None

    def tell(self, more: int = 0) -> None:
        """Publishes what is under way and what waits here, with so many `more` under way."""
        row, slot, service = self._row, self._slot, self._service
        if row is None:
            return
        waiting = service.waiting
        row.in_flight[slot] = service.in_flight - len(waiting) + more
        row.held[slot] = len(waiting)
        row.bytes[slot] = service.parked_bytes
        row.latency[slot] = waiting[0].queued_at if waiting else 0.0

    def ask_to_wait(self) -> tuple[int, int]:
        """Announces one that waits; those that wait at other workers, and the bytes held for
        them."""
        row, slot = self._row, self._slot
        if row is None:
            return 0, 0
        row.held[slot] = len(self._service.waiting) + 1
        row.sync()
        return row.held_elsewhere(slot), row.bytes_elsewhere(slot)

    def enter(self, now: float, since: float, more: int) -> bool:
        """Whether the service may have one more under way: one that is counted in its in-flight
        already, and stands in its queue if `more` is 1. `since` is when that began to wait,
        or infinity for one that has begun and must not wait."""
        limit = self._mine(self._service.config.limits.service_in_flight)
        if not limit:
            return True
        self.tell(more)
        total = self._service.in_flight - len(self._service.waiting) + more
        row = self._row
        if row is not None:
            row.sync()
            total += row.in_flight_elsewhere(self._slot)
        return total < limit or (total == limit and self._turn(now, since))

    def take(self, endpoint: "EndpointState", now: float, since: float) -> bool:
        """Whether an endpoint takes one more request; announced until it starts there, or
        `EndpointState.tell` is called."""
        limits = self._service.config.limits
        limit = self._mine(limits.endpoint_in_flight)
        if endpoint.gradient is not None:
            limit = min(limit or endpoint.gradient.limit, endpoint.gradient.limit)
        if limit:
            total = endpoint.announce(1)
            if total > limit or (total == limit and not self._turn(now, since)):
                return False
        most = self._mine(limits.endpoint_connections)
        if most:
            new = not endpoint.idle
            total = endpoint.announce_connection(int(new))
            if (new and total > most) or (total >= most and not self._turn(now, since)):
                return False
        return True

    def connections_left(self, endpoint: "EndpointState") -> int:
        """How many connections this worker may have to an endpoint, going by the others'."""
        most = self._mine(self._service.config.limits.endpoint_connections)
        return most - endpoint.connections_elsewhere()

    def in_the_way(self, endpoint: "EndpointState", now: float) -> bool:
        """Whether an idle connection to an endpoint keeps another worker, where requests wait,
        from opening one."""
        row, most = self._row, self._service.config.limits.endpoint_connections
        if row is None or not most or (self._service.waiting and now >= self._yield_until):
            return False
        full = endpoint.connections + endpoint.connections_elsewhere() >= most
        return full and row.held_elsewhere(self._slot) > 0

    def open(self, endpoint: "EndpointState") -> bool:
        """Whether an endpoint seems to have room, by what was last seen of the others."""
        limits = self._service.config.limits
        adaptive = endpoint.gradient.limit if endpoint.gradient is not None else 0
        if not admit.may_send(limits, endpoint.in_flight, adaptive):
            return False
        return bool(endpoint.idle) or admit.may_connect(limits, endpoint.connections)

    def _mine(self, limit: int) -> int:
        if self._row is not None or self.workers < 2:
            return limit
        return limit and max(1, limit // self.workers)

    def _turn(self, now: float, since: float) -> bool:
        """Whether this worker may take the last place, for a request that waits `since` then."""
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
