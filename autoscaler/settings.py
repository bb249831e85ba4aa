"""The scaling settings of one service. Pure.

`meshd.scaling.settings` makes them from a spec; `meshd simulate` makes them from its options.
"""

from dataclasses import dataclass

_POSITIVE = (
    "latency", "concurrency", "rps", "cpu", "queue", "external", "down_window", "calm",
)  # fmt: skip
"""Settings that must be above 0 when they are set."""


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """Bounds, objectives and limits of a service. Only `max` and one objective are needed.

    - `min`, `max`: bounds on the number of replicas; `min` 0 allows scaling to zero.
    - `latency` (seconds), `share` (percent): this share of the requests is answered within it.
    - `concurrency`: target for the mean number of requests in flight per replica.
    - `rps`: target for requests per second and replica.
    - `cpu`: target for the mean CPU use of a replica, in percent of its limit.
    - `queue` (seconds): target for the mean time that a request waits for a replica.
    - `external`: amount of `Signal.external` per replica.
    - `down_window` (seconds): how long a lower number must have been enough before replicas are
      removed; None lets the policy choose.
    - `calm` (replica-seconds): cost that may be spent to avoid one change of the number; None lets
      the policy choose (65, or in proportion to `down_window`).
    - `idle` (seconds): a service with `min` 0 goes to zero after this time without requests.
    - `step_up`: the number may at most multiply by this in one step, and may always grow by
      `step_up_least`.
    - `step_down`: share of the replicas that may be removed in one step; one always may.
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
        """Raise ValueError, naming the field, for settings that contradict each other."""
        if self.min < 0 or self.max < 1 or self.min > self.max:
            raise ValueError(
                f"min {self.min}, max {self.max}: expected 0 <= min <= max and max >= 1"
            )
        if not 0.0 < self.share < 100.0:
            raise ValueError(f"share {self.share}: expected a percentage between 0 and 100")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} {value}: must be above 0")
        if self.step_up <= 1.0 or self.step_up_least < 1 or not 0.0 < self.step_down <= 1.0:
            raise ValueError("steps: expected step_up > 1, step_up_least >= 1, 0 < step_down <= 1")
