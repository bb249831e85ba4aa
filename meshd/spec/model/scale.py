"""`x-mesh.scale`: the number of replicas: its bounds, objectives and rate of change.

Part of `meshd.spec.model.mesh`; `meshd.scaling` carries it out.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Count, Duration, Model, WholeNumber
from meshd.spec.reader import shorthand


class Objective(Model):
    """A latency objective.

    - `latency`: seconds that a response may take
    - `share`: percent of the responses that take at most that long
    """

    latency: Annotated[Duration, Field(gt=0)]
    share: Annotated[float, Field(gt=0, lt=100)] = 95.0


class PrometheusQuery(Model):
    """An external demand signal from Prometheus.

    - `url`: the URL of the Prometheus server
    - `query`: the query; the sum of its results is the demand
    - `per_replica`: how much of the demand one replica handles
    """

    url: str
    query: str
    per_replica: Annotated[float, Field(gt=0)]

    _url = field_validator("url")(shorthand.check_url)


class ScalingSchedule(Model):
    """A scheduled minimum of replicas.

    - `cron`: when it starts: five fields (minute, hour, day, month, weekday) or e.g. @daily
    - `duration`: seconds it lasts; one minute to seven days
    - `min`: the lowest number of replicas during that time
    - `timezone`: the time zone whose wall clock `cron` refers to, e.g. Europe/Berlin
    """

    cron: str
    duration: Annotated[Duration, Field(ge=60, le=7 * 86400)]
    min: Annotated[WholeNumber, Field(ge=1)]
    timezone: str = "UTC"

    _cron = field_validator("cron")(shorthand.check_cron)
    _timezone = field_validator("timezone")(shorthand.check_timezone)


class Scale(Model):
    """The number of replicas, and what determines it. The objective that needs most replicas wins.
    Without any, the number is `min`. `p95: 200ms` is short for
    `objective: {latency: 200ms, share: 95}`.

    - `min`: the lowest number; 0 lets an idle service scale to zero. Default: `deploy.replicas`
    - `max`: the highest number; required with an objective. Default: `min`
    - `objective`: a latency objective
    - `concurrency`: requests in flight per replica
    - `rps`: requests per second per replica
    - `cpu`: CPU use per replica, in percent of its limit, or of one core if it has no limit
    - `queue`: seconds that requests may wait for a replica on average
    - `prometheus`: an external demand signal
    - `schedule`: minimums at given times
    - `up_window`: seconds that demand must be higher before replicas are added
    - `down_window`: seconds that demand must be lower before replicas are removed
    - `cooldown`: seconds after any change in which no replica is removed
    - `calm`: seconds that one surplus replica is kept before a change is worth it; n surplus
      replicas are kept an nth as long
    - `step_up`: the largest factor of growth in one step
    - `step_down`: the largest share of the replicas removed in one step
    - `priority`: if the nodes lack capacity for all services, higher priorities come first
    - `warm`: extra replicas that are started and then paused, to be resumed when needed; `auto`
      follows the bursts of the last hours
    - `idle`: with `min: 0`, seconds without a request after which the last replica is removed
    """

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
        """Whether anything besides the bounds determines the number."""
        found = (self.objective, self.concurrency, self.rps, self.cpu, self.queue, self.prometheus)
        return any(found) or bool(self.schedule)

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; expected min <= max")
        if not self.max:
            raise ValueError("max is 0, so no request could be served; expected 1 or more")
        for each in self.schedule:
            if each.min > self.max:
                raise ValueError(
                    f"the min of a schedule is {each.min}, above max {self.max}; expected at most "
                    f"{self.max}"
                )
        return self
