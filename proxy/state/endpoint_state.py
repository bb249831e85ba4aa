"""What a worker knows of an endpoint while it runs: kept by id from snapshot to snapshot."""

from typing import TYPE_CHECKING, Final

from proxy.http1.response_template import ResponseTemplates
from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.counters import EndpointCounters
from proxy.policy.eject import EndpointHealth
from proxy.policy.gradient import Gradient
from proxy.policy.latency import LatencyAtLoad, PeakEwma
from proxy.wire.snapshot import Endpoint

if TYPE_CHECKING:
    from proxy.request.upstream import Upstream

NEVER: Final = float("inf")


class EndpointState:
    """One endpoint's live state.

    `in_flight` is what balancing goes by: this worker's own, plus `foreign`, which other
    workers have. `idle` holds open connections, the last used at the end, which are kept for
    `idle_seconds` unless the endpoint asks for less. `connections` counts all that are open or
    being opened. `answers` is what its service's answers are known by.
    """

    __slots__ = (
        "_row",
        "_slot",
        "answers",
        "connections",
        "counters",
        "endpoint",
        "estimate",
        "fast_failing",
        "foreign",
        "gradient",
        "health",
        "id",
        "idle",
        "idle_seconds",
        "in_flight",
        "latency_elsewhere",
        "service",
        "serving",
        "weight",
    )

    def __init__(
        self,
        service: str,
        endpoint: Endpoint,
        answers: ResponseTemplates,
        *,
        peak: bool,
        adaptive: bool,
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.id = endpoint.id
        self.weight = endpoint.weight
        self.in_flight = 0
        self.foreign = 0
        self._row: WorkerRow | None = None
        self._slot = -1
        self.latency_elsewhere = 0.0
        self.fast_failing = False
        self.estimate: PeakEwma | LatencyAtLoad = PeakEwma() if peak else LatencyAtLoad()
        self.gradient = Gradient() if adaptive else None
        self.health = EndpointHealth(endpoint.id)
        self.counters = EndpointCounters()
        self.idle: list[Upstream] = []
        self.idle_seconds = 60.0
        self.connections = 0
        self.serving = True
        self.answers = answers

    def adapt(self, adaptive: bool) -> None:
        """Whether it has a limit of its own that follows its latency, from now on."""
        if not adaptive:
            self.gradient = None
        elif self.gradient is None:
            self.gradient = Gradient()

    @property
    def latency(self) -> float:
        """What to expect of it now; from other workers where this one knows nothing."""
        return self.estimate.at(self.in_flight) or self.latency_elsewhere

    def start(self, now: float) -> None:
        """A request goes to the endpoint; `now` is monotonic."""
        # `EndpointCounters.start`, written out: a call less on the path of every request.
        self.in_flight += 1
        counters = self.counters
        counters.in_flight += 1
        counters.started += 1
        counters.integral -= now
        if self._row is not None:
            self._row.in_flight[self._slot] = counters.in_flight

    def finish(self, now: float) -> None:
        """It is over, whatever came of it."""
        self.in_flight -= 1
        counters = self.counters
        counters.in_flight -= 1
        counters.integral += now
        if self._row is not None:
            self._row.in_flight[self._slot] = counters.in_flight

    def answered(self, seconds: float, now: float, load: int) -> bool:
        """Takes in a good answer that took so long, when `load` requests were in flight before
        its own; True when it re-admitted the endpoint."""
        self.estimate.observe(seconds, now, load)
        if self.gradient is not None:
            self.gradient.observe(seconds, load + 1)
        health = self.health
        back = health.record_success(seconds)
        self.fast_failing = health.failure_ewma > 0.0 and health.fast_failing
        return back

    def share(self, row: WorkerRow) -> None:
        """Let other workers see what this one has in flight here, and see theirs."""
        if self._row is None:
            self._slot = row.claim(self.service, self.id)
            self._row = row if self._slot >= 0 else None
            self.tell()

    def tell(self) -> None:
        """Publishes what this worker has here."""
        row = self._row
        if row is not None:
            row.in_flight[self._slot] = self.counters.in_flight
            row.held[self._slot] = self.connections

    def announce(self, more: int) -> int:
        """Publishes `more` requests than there are, and counts everybody's."""
        row, total = self._row, self.counters.in_flight + more
        if row is None:
            return total
        row.in_flight[self._slot] = total
        row.sync()
        foreign = row.in_flight_elsewhere(self._slot)
        self.in_flight += foreign - self.foreign
        self.foreign = foreign
        return total + foreign

    def announce_connection(self, more: int) -> int:
        """The same for connections."""
        row, total = self._row, self.connections + more
        if row is None:
            return total
        row.held[self._slot] = total
        row.sync()
        return total + row.held_elsewhere(self._slot)

    def connections_elsewhere(self) -> int:
        """The connections that other workers have here."""
        return self._row.held_elsewhere(self._slot) if self._row is not None else 0

    def connected(self, change: int) -> None:
        """A connection came about, or went."""
        self.connections += change
        if self._row is not None:
            self._row.held[self._slot] = self.connections

    def look_around(self) -> None:
        """Takes in what the other workers know; the row has to be in step with theirs."""
        row = self._row
        if row is None:
            return
        foreign = row.in_flight_elsewhere(self._slot)
        self.in_flight += foreign - self.foreign
        self.foreign = foreign
        row.latency[self._slot] = self.estimate.at(self.in_flight)
        self.latency_elsewhere = row.mean_latency(self._slot)

    def unshare(self) -> None:
        """The endpoint is gone and nothing is in flight here."""
        if self._row is not None:
            self._row.release(self._slot)
            self._row = None


Endpoints = tuple[EndpointState, ...]


NO_ENDPOINTS: Final[Endpoints] = ()
