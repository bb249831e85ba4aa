"""The scores of a run. Pure. `simulate.run` fills them in; reports and tests read them."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SimulationResult:
    """The scores of a run.

    - `requests`, `missed`: scored requests, and those over the objective or refused.
    - `replica_hours`, `warm_hours`: cost of running and of paused replicas.
    - `actions`: changes of the number of replicas.
    - `latency`: answers by the upper bound of their bucket (seconds).
    - `chart`: one sample a minute (second, arrivals, ready, desired).
    """

    requests: int = 0
    missed: int = 0
    replica_hours: float = 0.0
    warm_hours: float = 0.0
    actions: int = 0
    latency: dict[float, int] = field(default_factory=dict)
    chart: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def missed_pct(self) -> float:
        """Percent of the scored requests that were over the objective or refused."""
        return 100.0 * self.missed / self.requests if self.requests else 0.0

    def quantile(self, q: float) -> float | None:
        """Return the latency (seconds) below which a share `q` of the answers was; None if none."""
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
        """Count one second: `answers` of the requests that arrived in it, and the `histogram` of
        those that ended in it."""
        self.requests += len(answers)
        self.missed += sum([answer > objective for answer in answers])
        latency = self.latency
        for bound, count in histogram:
            latency[bound] = latency.get(bound, 0) + count
