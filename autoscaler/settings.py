"""What a user asks of the autoscaler."""

from dataclasses import dataclass

_ABOVE_ZERO = (
    "latency", "concurrency", "rps", "cpu", "queue", "external", "down_window", "calm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """How many replicas, and what they are to hold. Only `max` and one objective need saying.

    - `min`, `max`: bounds on the number of replicas; `min` 0 allows scaling to zero.
    - `latency` (seconds), `share` (percent): that share of the requests is answered within it.
    - `concurrency`: requests in flight a replica should hold on average.
    - `rps`: requests a second a replica should serve on average.
    - `cpu`: percent of its CPU limit a replica should use on average.
    - `queue` (seconds): mean time a request may wait before a replica takes it up.
    - `external`: amount of `Signal.external` one replica is there for.
    - `down_window` (seconds): how long a smaller number must have been enough before replicas
      go; None lets the policy choose.
    - `calm`: replica-seconds that may be spent to save one change of the number; None lets the
      policy choose (65, or in proportion to `down_window`).
    - `idle` (seconds): without any request for so long, a service with `min` 0 goes to zero.
    - `step_up`: the number may at most multiply by this in one step (and may always grow by
      `step_up_least`); `step_down`: share of the replicas that may go in one step (one always
      may).
    """

    min: int = 1
    max: int = 10
    latency: float | None = None
    share: float = 95.0
    concurrency: float | None = None
    rps: float | None = None
    cpu: float | None = None
    queue: float | None = None
    external: float | None = None
    down_window: float | None = None
    calm: float | None = None
    idle: float = 300.0
    step_up: float = 10.0
    step_up_least: int = 4
    step_down: float = 0.8

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field, for settings that contradict themselves."""
        if self.min < 0 or self.max < 1 or self.min > self.max:
            raise ValueError(f"min {self.min}, max {self.max}: need 0 <= min <= max and max >= 1")
        if not 0.0 < self.share < 100.0:
            raise ValueError(f"share {self.share}: need a percentage between 0 and 100")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} {value}: must be above 0")
        if self.step_up <= 1.0 or self.step_up_least < 1 or not 0.0 < self.step_down <= 1.0:
            raise ValueError("steps: need step_up > 1, step_up_least >= 1, 0 < step_down <= 1")
