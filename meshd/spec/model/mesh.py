"""`x-mesh` of a service: what Compose has no word for, put together."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, Port, Share, WholeNumber
from meshd.spec.model.health import HealthCheck
from meshd.spec.model.rollout import RolloutSettings
from meshd.spec.model.route import RouteSpec
from meshd.spec.model.scale import Scale
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts
from meshd.spec.reader import shorthand


class JobSchedule(Model):
    """A one-off job of the service at every minute that `cron` names by the wall clock of
    `timezone`: its `command`, or, where none is given, the service's own, which is then run at
    these times and not kept running. While the run before has not ended, `concurrency: forbid`
    leaves one out, `replace` ends that run first, `allow` runs both. A run is ended after
    `timeout` (0: never). Of times that went by while nobody looked the last is made up for, with
    `catch_up`. `history` ended runs are remembered. Several schedules need a `name` each."""

    cron: str
    timezone: str = "UTC"
    name: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?)?$")] = ""
    command: tuple[str, ...] | None = None
    concurrency: Literal["forbid", "replace", "allow"] = "forbid"
    timeout: Duration = 0.0
    catch_up: bool = True
    history: Annotated[WholeNumber, Field(ge=1, le=1000)] = 10

    _short = model_validator(mode="before")(shorthand.expand_job_schedule)
    _cron = field_validator("cron")(shorthand.check_cron)
    _timezone = field_validator("timezone")(shorthand.check_timezone)
    _words = field_validator("command", mode="before")(shorthand.split_command)


class Mesh(Model):
    """`x-mesh` of a service: what Compose has no word for.

    `port` is what replicas listen on (told to them as $PORT); None picks the first of
    `expose`/`ports`, or 8080. `allow` names the services that may call this one; None lets
    all, and with `audit` those that it does not name are only counted. `drain` bounds how long
    a leaving replica may finish what it has. `trace` starts a trace for requests that come
    without one, this share of them sampled; None starts none. `schedule` runs one-off jobs.
    """

    port: Port | None = None
    routes: tuple[RouteSpec, ...] = ()
    scale: Scale | None = None
    health: HealthCheck = HealthCheck()
    balance: Balance = Balance()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    limits: LimitsSpec = LimitsSpec()
    parking: ParkingSpec = ParkingSpec()
    eject: EjectSpec = EjectSpec()
    allow: tuple[str, ...] | None = None
    audit: bool = False
    drain: Duration = 30.0
    rollout: RolloutSettings = RolloutSettings()
    trace: Share | None = None
    schedule: tuple[JobSchedule, ...] = ()

    _many_schedules = field_validator("schedule", mode="before")(shorthand.wrap_in_list)
    _named = field_validator("schedule")(shorthand.check_names_differ)
    _many_routes = field_validator("routes", mode="before")(shorthand.wrap_in_list)
    _many_callers = field_validator("allow", mode="before")(shorthand.wrap_in_list)
    _unique_routes = field_validator("routes")(shorthand.check_unique)

    @property
    def runs_once(self) -> bool:
        """Whether the service itself is a job: run at its times, and not kept running."""
        return any(each.command is None for each in self.schedule)

    @model_validator(mode="after")
    def _job_or_not(self) -> Self:
        if self.runs_once and (self.routes or self.scale):
            raise ValueError(
                "a schedule without a command makes the service itself a job, which is neither "
                "routed to nor scaled; give the schedule a command, or leave routes and scale out"
            )
        return self
