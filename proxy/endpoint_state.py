"""What a worker knows of an endpoint while it runs: kept by id from snapshot to snapshot."""

from typing import TYPE_CHECKING

from proxy.observe.counters import EndpointCounters
from proxy.policy.eject import Health
from proxy.policy.gradient import Gradient
from proxy.policy.latency import PeakEwma, RecentLatency
from proxy.wire.snapshot import Endpoint

if TYPE_CHECKING:
    from proxy.upstream import Upstream


class EndpointState:
    """One endpoint's live state.

    `in_flight` is what balancing goes by: this worker's own, plus `foreign`, which other
    workers have. `idle` holds open connections, the last used at the end. `connections` counts
    all that are open or being opened.
    """

    __slots__ = (
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
        "in_flight",
        "latency",
        "service",
        "serving",
        "slot",
        "weight",
    )

    def __init__(self, service: str, endpoint: Endpoint, *, peak: bool, adaptive: bool) -> None:
        self.service = service
        self.endpoint = endpoint
        self.id = endpoint.id
        self.weight = endpoint.weight
        self.in_flight = 0
        self.foreign = 0
        self.slot = -1
        self.latency = 0.0
        self.fast_failing = False
        self.estimate: PeakEwma | RecentLatency = PeakEwma() if peak else RecentLatency()
        self.gradient = Gradient() if adaptive else None
        self.health = Health(endpoint.id)
        self.counters = EndpointCounters()
        self.idle: list[Upstream] = []
        self.connections = 0
        self.serving = True

    def start(self, now: float) -> None:
        """A request goes to the endpoint; `now` is monotonic."""
        self.in_flight += 1
        self.counters.start(now)

    def finish(self, now: float) -> None:
        """It is over, whatever came of it."""
        self.in_flight -= 1
        self.counters.finish(now)

    def answered(self, seconds: float, now: float) -> bool:
        """Takes in a good answer that took so long; True when it re-admitted the endpoint."""
        self.estimate.observe(seconds, now)
        self.latency = self.estimate.value
        if self.gradient is not None:
            self.gradient.observe(seconds, self.in_flight)
        health = self.health
        back = health.succeeded(seconds)
        self.fast_failing = health.trouble > 0.0 and health.fast_failing
        return back

    @property
    def own(self) -> int:
        """What this worker alone has in flight here."""
        return self.counters.in_flight

    def set_foreign(self, count: int) -> None:
        """What the other workers have in flight here, as last seen."""
        self.in_flight += count - self.foreign
        self.foreign = count
