"""What a run came to."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SimulationResult:
    """What a run came to. `latency` counts answers by the upper bound of their bucket, `chart`
    samples (second, arrivals, ready, desired) every minute."""

    requests: int = 0
    missed: int = 0
    replica_hours: float = 0.0
    warm_hours: float = 0.0
    actions: int = 0
    latency: dict[float, int] = field(default_factory=dict)
    chart: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def missed_pct(self) -> float:
        """Share of the scored requests over the objective or refused."""
        return 100.0 * self.missed / self.requests if self.requests else 0.0

    def quantile(self, q: float) -> float | None:
        """Latency in seconds that a share `q` of the answered requests stayed under."""
        total = sum(self.latency.values())
        seen = 0
        for bound in sorted(self.latency):
            seen += self.latency[bound]
            if seen >= q * total:
                return bound
        return None

    def score(
        self, answers: list[float], histogram: tuple[tuple[float, int], ...], objective: float
    ) -> None:
        """Counts one second: `answers` to what arrived in it, `histogram` of what ended in it."""
        self.requests += len(answers)
        self.missed += sum([answer > objective for answer in answers])
        latency = self.latency
        for bound, count in histogram:
            latency[bound] = latency.get(bound, 0) + count
