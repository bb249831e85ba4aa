"""How many replicas: bounds, what is aimed at, and how fast it may change."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Count, Duration, Model, WholeNumber
from meshd.spec.reader import shorthand


class Objective(Model):
    """`share` percent of the requests are answered within `latency` seconds."""

    latency: Annotated[Duration, Field(gt=0)]
    share: Annotated[float, Field(gt=0, lt=100)] = 95.0


class PrometheusQuery(Model):
    """An external signal: the sum of what `query` gives at the Prometheus at `url`, of which one
    replica is there for `per_replica`."""

    url: str
    query: str
    per_replica: Annotated[float, Field(gt=0)]

    _url = field_validator("url")(shorthand.check_url)


class ScalingSchedule(Model):
    """`min` replicas at least, for `duration` from every minute that `cron` names by the wall
    clock of `timezone`."""

    cron: str
    duration: Annotated[Duration, Field(ge=60, le=7 * 86400)]
    min: Annotated[WholeNumber, Field(ge=1)]
    timezone: str = "UTC"

    _cron = field_validator("cron")(shorthand.check_cron)
    _timezone = field_validator("timezone")(shorthand.check_timezone)


class Scale(Model):
    """How many replicas. `p95: 200ms` is short for `objective: {latency: 200ms, share: 95}`.
    `concurrency` is the requests in flight a replica works at, `rps` the requests a second it
    takes, `cpu` the percentage of its CPU limit (of one core without one) it is to use, `queue`
    how long requests may wait for a replica on average, `prometheus` an external signal. The
    largest of these demands wins. With none given, only min (= `deploy.replicas`) holds. Without
    `max`, it is `min`. With `min` 0 the last replica goes after `idle` seconds without a request.
    `up_window` and `down_window` are how long more, or less, must have been wanted; `cooldown`
    how long after any change nothing goes. `calm` is how long one replica too many is kept before a
    change is worth it, n of them a nth as long. `step_up` and `step_down` bound one step. Where the
    nodes have no room for all, services of a higher `priority` come first. `warm` replicas more
    are kept started and paused, to be woken instead of started; with `auto` as many as were ever
    wanted at once in the last hours."""

    min: Count = 1
    max: Count = 1
    objective: Objective | None = None
    concurrency: Annotated[float | None, Field(gt=0)] = None
    rps: Annotated[float | None, Field(gt=0)] = None
    cpu: Annotated[float | None, Field(gt=0)] = None
    queue: Annotated[Duration, Field(gt=0)] | None = None
    prometheus: PrometheusQuery | None = None
    schedule: tuple[ScalingSchedule, ...] = ()
    up_window: Duration = 0.0
    down_window: Annotated[Duration, Field(gt=0)] | None = None
    cooldown: Duration = 0.0
    calm: Annotated[Duration, Field(gt=0)] | None = None
    step_up: Annotated[float, Field(gt=1)] = 10.0
    step_down: Annotated[float, Field(gt=0, le=1)] = 0.8
    priority: WholeNumber = 0
    warm: int | Literal["auto"] = 0
    idle: Annotated[Duration, Field(gt=0)] = 300.0

    _short = model_validator(mode="before")(shorthand.expand_scale)
    _pool = field_validator("warm", mode="before")(shorthand.parse_warm)
    _many = field_validator("schedule", mode="before")(shorthand.wrap_in_list)

    @property
    def has_objectives(self) -> bool:
        """Whether anything but bounds is given."""
        aims = (self.objective, self.concurrency, self.rps, self.cpu, self.queue, self.prometheus)
        return any(aims) or bool(self.schedule)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; expected min <= max")
        if not self.max:
            raise ValueError("max is 0, so no request could ever be served; expected 1 or more")
        for each in self.schedule:
            if each.min > self.max:
                raise ValueError(f"a schedule wants {each.min}, above max {self.max}")
        return self
