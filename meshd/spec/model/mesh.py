"""`x-mesh` of a service: the settings that Compose has no keys for.

Part of `meshd.spec.model.service`; the sections are in the neighbouring modules.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, Port, Share, WholeNumber
from meshd.spec.model.health import HealthCheck
from meshd.spec.model.placement import PlacementSettings
from meshd.spec.model.rollout import RolloutSettings
from meshd.spec.model.route import RouteSpec
from meshd.spec.model.scale import Scale
from meshd.spec.model.tcp_port import TcpPortSpec
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts
from meshd.spec.model.upstream import UpstreamSpec
from meshd.spec.reader import shorthand
from proxy.wire.snapshot import HttpVersion


class JobSchedule(Model):
    """A one-off job of the service, started at every minute that `cron` matches.

    - `cron`: five fields (minute, hour, day, month, weekday) or e.g. @daily
    - `timezone`: the time zone whose wall clock `cron` refers to, e.g. Europe/Berlin
    - `name`: distinguishes the schedules of a service; must be unique if there are several
    - `command`: the command to run. Without it, the service itself is the job: its own command
      runs at these times and is not kept running
    - `concurrency`: what to do if the previous run has not ended: `forbid` skips the new run,
      `replace` ends the previous run first, `allow` runs both
    - `timeout`: seconds after which a run is ended; 0 means never
    - `catch_up`: whether to start one run for times missed while the daemon was not running
    - `history`: how many ended runs are kept
    """

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


class DrainSettings(Model):
    """How long requests and tunnels are waited for. A single duration sets `requests`.

    - `requests`: seconds a replica may take to finish its requests before it is stopped, and the
      stand-alone proxy before it ends
    - `tunnels`: seconds for which a worker of the proxy that is replaced keeps tunnels: WebSockets,
      other upgrades, and connections to `tcp` ports
    """

    requests: Duration = 30.0
    tunnels: Duration = 3600.0

    _short = model_validator(mode="before")(shorthand.expand_drain)


class Mesh(Model):
    """`x-mesh` of a service: the settings that Compose has no keys for.

    - `port`: the port that replicas listen on, passed to them as $PORT unless the file sets it.
      Default: the first port of `expose`, of `ports`, of the image or of `tcp`, else PORT in
      `environment`, else 8080
    - `tcp`: ports of replicas that do not speak HTTP; the mesh passes their connections on as they
      are. Each is a number, or a mapping with policies. Default: the declared ports of well-known
      protocols, such as 5432 of PostgreSQL; an empty list means none
    - `routes`: the public routes to the service
    - `scale`: the number of replicas, and what determines it
    - `health`: the active probe
    - `balance`, `timeouts`, `retries`, `limits`, `parking`, `eject`: how requests are sent to
      replicas
    - `upstream`: how the proxy connects to replicas
    - `protocol`: the version of HTTP to replicas: `http1`; `h2c`, HTTP/2 in the clear; `h2`, HTTP/2
      over TLS; `auto`, what a replica with TLS chooses. gRPC needs HTTP/2
    - `allow`: the services that may call this one. Default: all
    - `audit`: let through and count calls that `allow` does not cover, instead of rejecting them
    - `enforce`: keep containers of the same networks from connecting past the mesh and `allow`
    - `drain`: how long what is going on may take before a replica or a proxy worker ends
    - `placement`: which nodes of a Swarm get replicas
    - `rollout`: how traffic moves to a new revision
    - `trace`: start a trace for requests without one; the share of them that is sampled.
      Default: start none
    - `schedule`: one-off jobs at given times
    """

    port: Port | None = None
    tcp: tuple[TcpPortSpec, ...] | None = None
    routes: tuple[RouteSpec, ...] = ()
    scale: Scale | None = None
    health: HealthCheck = HealthCheck()
    balance: Balance = Balance()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    limits: LimitsSpec = LimitsSpec()
    parking: ParkingSpec = ParkingSpec()
    eject: EjectSpec = EjectSpec()
    upstream: UpstreamSpec = UpstreamSpec()
    protocol: HttpVersion = "http1"
    allow: tuple[str, ...] | None = None
    audit: bool = False
    enforce: bool = False
    drain: DrainSettings = DrainSettings()
    placement: PlacementSettings = PlacementSettings()
    rollout: RolloutSettings = RolloutSettings()
    trace: Share | None = None
    schedule: tuple[JobSchedule, ...] = ()

    _many_schedules = field_validator("schedule", mode="before")(shorthand.wrap_in_list)
    _named = field_validator("schedule")(shorthand.check_names_differ)
    _many_ports = field_validator("tcp", mode="before")(shorthand.wrap_in_list)
    _many_routes = field_validator("routes", mode="before")(shorthand.wrap_in_list)
    _many_callers = field_validator("allow", mode="before")(shorthand.wrap_in_list)
    _unique_routes = field_validator("routes")(shorthand.check_unique)

    @field_validator("tcp")
    @classmethod
    def _check_tcp(cls, value: tuple[TcpPortSpec, ...] | None) -> tuple[TcpPortSpec, ...] | None:
        found: dict[int, TcpPortSpec] = {}
        for each in value or ():
            if found.setdefault(each.port, each) != each:
                raise ValueError(f"port {each.port} is given twice with different policies")
        return value

    def for_port(self, port: int) -> Self:
        """Return the settings with the policies that `tcp` has for a port."""
        for each in self.tcp or ():
            if each.port == port and (sections := each.sections()):
                return self.model_copy(update=sections)
        return self

    @property
    def is_job(self) -> bool:
        """Whether the service itself is a job: started at its times, and not kept running."""
        return any(each.command is None for each in self.schedule)

    @property
    def probe(self) -> HealthCheck:
        """The health check of an HTTP port, with the Host that its probes send; without one there,
        they send the replica's address."""
        # A server of HTTP/2 need not understand a probe in HTTP/1.1.
        health = self.health.resolve(tcp=self.protocol in ("h2c", "h2"))
        exact = next((route.host for route in self.routes if "*" not in route.host), "")
        if health.host or not exact:
            return health
        return health.model_copy(update={"host": exact})

    @property
    def is_enforced(self) -> bool:
        """Whether connections past the mesh are to be prevented."""
        return self.enforce and self.allow is not None and not self.audit

    @model_validator(mode="after")
    def _check_enforce(self) -> Self:
        if self.enforce and self.allow is None:
            raise ValueError("enforce needs allow, the list that it enforces; add allow")
        return self

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        upstream = self.upstream
        if self.protocol == "h2c" and upstream.tls is not None:
            raise ValueError("protocol h2c is HTTP/2 in the clear; expected h2 with upstream.tls")
        if self.protocol != "http1" and upstream.proxy_protocol is not None:
            raise ValueError(
                "a connection of HTTP/2 carries requests of many clients, so that "
                "upstream.proxy_protocol cannot name one; expected protocol http1"
            )
        return self

    @model_validator(mode="after")
    def _check_job(self) -> Self:
        if self.is_job and (self.routes or self.scale):
            raise ValueError(
                "a schedule without a command makes the service itself a job, which cannot have "
                "routes or scale; add a command to the schedule, or remove routes and scale"
            )
        return self
