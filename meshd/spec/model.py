"""The spec: what should run, as plain frozen values after reading and checking.

Durations are seconds, sizes bytes; as input both may be written for people (`200ms`, `64k`),
and what stands under `x-mesh` may use the short forms of `meshd.spec.shorthand`. The models
refuse unknown fields; `compose` turns their errors into ones that name file and line.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from meshd.spec import shorthand, units

_OR_TEXT = {"type": ["string", "number"]}
Duration = Annotated[
    float, BeforeValidator(units.duration), WithJsonSchema(_OR_TEXT, mode="validation")
]
Size = Annotated[int, BeforeValidator(units.size), WithJsonSchema(_OR_TEXT, mode="validation")]
Whole = Annotated[int, BeforeValidator(units.whole)]
Count = Annotated[Whole, Field(ge=0)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[
    float,
    BeforeValidator(units.share),
    Field(gt=0, le=1),
    WithJsonSchema(_OR_TEXT, mode="validation"),
]
Amount = Annotated[str, BeforeValidator(units.amount), WithJsonSchema(_OR_TEXT, mode="validation")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]
Algorithm = Literal[
    "hot-cold",
    "round-robin",
    "weighted",
    "least-request",
    "peak-ewma",
    "random",
    "ring-hash",
    "maglev",
]


class Model(BaseModel):
    """Base of the spec's values: immutable and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Health(Model):
    """Active probe. Without `path` and with `tcp` the port only has to accept; `type: none`
    trusts the container's own health check, or its running, alone. A replica gets no request
    before its first good probe; `failures` bad ones in a row take it out of rotation and have
    it restarted; it must become healthy within `start_timeout`. While `ready`, a path asked for
    beside, answers badly, it gets no requests and is let be."""

    type: Literal["http", "tcp", "none"] = "http"
    path: str = "/healthz"
    ready: str = ""
    interval: Annotated[Duration, Field(gt=0)] = 1.0
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    failures: Annotated[Whole, Field(ge=1)] = 3
    start_timeout: Annotated[Duration, Field(gt=0)] = 60.0

    _short = model_validator(mode="before")(shorthand.health)
    _path = field_validator("path")(shorthand.check_target)
    _ready = field_validator("ready")(shorthand.check_target_if_any)

    @model_validator(mode="after")
    def _asked_for(self) -> "Health":
        if self.ready and self.type == "none":
            raise ValueError("ready is asked for with the probe; type: none has none")
        return self


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


class Schedule(Model):
    """`min` replicas at least, for `duration` from every minute that `cron` names by the wall
    clock of `timezone`."""

    cron: str
    duration: Annotated[Duration, Field(ge=60, le=7 * 86400)]
    min: Annotated[Whole, Field(ge=1)]
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
    schedule: tuple[Schedule, ...] = ()
    up_window: Duration = 0.0
    down_window: Annotated[Duration, Field(gt=0)] | None = None
    cooldown: Duration = 0.0
    calm: Annotated[Duration, Field(gt=0)] | None = None
    step_up: Annotated[float, Field(gt=1)] = 10.0
    step_down: Annotated[float, Field(gt=0, le=1)] = 0.8
    priority: Whole = 0
    warm: int | Literal["auto"] = 0
    idle: Annotated[Duration, Field(gt=0)] = 300.0

    _short = model_validator(mode="before")(shorthand.scale)
    _pool = field_validator("warm", mode="before")(shorthand.pool)
    _many = field_validator("schedule", mode="before")(shorthand.one_or_many)

    @property
    def aims(self) -> bool:
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


class HeaderEdits(Model):
    """Header fields to set (replacing), add and remove, in that order. What frames a message
    or is the proxy's own to say cannot be edited; `host` can be set."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()

    _many = field_validator("remove", mode="before")(shorthand.one_or_many)
    _set = field_validator("set")(shorthand.check_edits)
    _add = field_validator("add")(shorthand.check_additions)
    _remove = field_validator("remove")(shorthand.check_removals)


class RateLimit(Model):
    """Token bucket of each `key`: `rate` requests a second, `burst` at once (without it, those
    of one second). Each worker process counts by itself."""

    rate: Annotated[float, Field(gt=0)]
    burst: Annotated[float | None, Field(ge=1)] = None
    key: str = "address"

    _short = model_validator(mode="before")(shorthand.rate_limit)
    _key = field_validator("key")(shorthand.check_key)


class Fault(Model):
    """What to do to a `share` of the requests: delay them, or answer them with a status."""

    share: Share = 1.0
    delay: Duration = 0.0
    abort: Annotated[Whole, Field(ge=200, le=599)] | None = None


class RouteSpec(Model):
    """A public route to the service: host (exact, `*.suffix` or `*`), path prefix and what
    else must `match`, and what is done to its requests; see `proxy.wire.snapshot.Route`."""

    host: str = "*"
    path: str = "/"
    match: tuple[str, ...] = ()
    strip: bool = False
    replace: str = ""
    redirect: str = ""
    redirect_status: Literal[301, 302, 303, 307, 308] = 308
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    rate_limit: RateLimit | None = None
    fault: Fault | None = None
    mirror: str = ""
    mirror_share: Percent = 1.0

    _short = model_validator(mode="before")(shorthand.route)
    _host = field_validator("host")(shorthand.check_host)
    _path = field_validator("path")(shorthand.check_path)
    _many = field_validator("match", mode="before")(shorthand.one_or_many)
    _match = field_validator("match")(shorthand.check_match)
    _replace = field_validator("replace")(shorthand.check_replacement)
    _redirect = field_validator("redirect")(shorthand.check_redirect)

    @model_validator(mode="after")
    def _clear(self) -> Self:
        if self.strip and self.replace:
            raise ValueError("strip and replace stand here together; expected one of them")
        return self

    @property
    def key(self) -> tuple[str, ...]:
        """What no two routes may have in common."""
        return (self.host, self.path, *sorted(self.match))

    def __str__(self) -> str:
        where = self.path if self.host == "*" else self.host + self.path
        return f"{where} ({', '.join(self.match)})" if self.match else where


class Balance(Model):
    """Balancing policy; see `proxy.wire.snapshot.Balance`. `hash_by` is what the hashing
    algorithms hash: `header:NAME`, `cookie:NAME` or `address`."""

    algorithm: Algorithm = "hot-cold"
    hash_by: str = ""
    sticky_cookie: str = ""
    slow_start: Duration = 0.0
    panic: Share = 0.5

    _short = model_validator(mode="before")(shorthand.balance)
    _hash_by = field_validator("hash_by")(shorthand.check_hash_by)
    _cookie = field_validator("sticky_cookie")(shorthand.check_cookie)


class Timeouts(Model):
    """Request deadlines; see `proxy.wire.snapshot.Timeouts`. 0 switches one off."""

    connect: Duration = 2.0
    first_byte: Duration = 60.0
    idle: Duration = 300.0
    request: Duration = 0.0
    body: Annotated[Duration, Field(gt=0)] = 20.0
    keep_alive: Annotated[Duration, Field(gt=0)] = 75.0
    head: Annotated[Duration, Field(gt=0)] = 10.0
    tunnel: Duration = 3600.0
    pool: Annotated[Duration, Field(gt=0)] = 60.0


class Retries(Model):
    """Retry policy; see `proxy.wire.snapshot.Retries`."""

    attempts: Annotated[Count, Field(le=10)] = 2
    budget: Share = 0.2
    reserve: Annotated[float, Field(ge=0)] = 10.0
    body_limit: Size = 65536
    status: tuple[Annotated[Whole, Field(ge=500, le=599)], ...] = (502, 503)
    hedge_after: Duration = 0.0


class LimitsSpec(Model):
    """Connection and concurrency bounds; see `proxy.wire.snapshot.Limits`."""

    endpoint_connections: Count = 0
    endpoint_in_flight: Count = 0
    service_in_flight: Count = 0
    pending: Count = 1024
    pending_timeout: Duration = 5.0
    adaptive: bool = False
    body: Size = 0


class ParkingSpec(Model):
    """Waiting for the first ready replica; see `proxy.wire.snapshot.Parking`."""

    requests: Count = 1024
    bytes: Size = 16 * 1024 * 1024
    timeout: Duration = 10.0


class Eject(Model):
    """Passive ejection; see `proxy.wire.snapshot.Ejection`."""

    consecutive: Count = 5
    base: Annotated[Duration, Field(gt=0)] = 5.0
    longest: Annotated[Duration, Field(gt=0)] = 300.0
    share: Share = 0.5
    success_rate: bool = True
    latency_factor: Annotated[float, Field(ge=0)] = 0.0


class Gate(Model):
    """Whether a new revision has to prove itself beside the old one. It is called worse at this
    `confidence`, and let on after so many `requests` of its own, or after `wait` seconds.
    `slower` times the old one's p95 is slow; in a replica's first `warm` seconds nothing is."""

    enabled: bool = True
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.99
    requests: Annotated[Whole, Field(ge=10)] = 200
    wait: Annotated[Duration, Field(gt=0)] = 30.0
    slower: Annotated[float, Field(ge=1)] = 1.5
    warm: Duration = 2.0

    _short = model_validator(mode="before")(shorthand.gate)


class Hook(Model):
    """A command in a one-off container of the new revision, for `timeout` seconds at most."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Annotated[Duration, Field(gt=0)] = 300.0

    _short = model_validator(mode="before")(shorthand.hook)
    _words = field_validator("command", mode="before")(shorthand.command)


class Rollout(Model):
    """How traffic goes over to a new revision, beside `deploy.update_config`.

    `rolling`: replica by replica. `canary`: the new revision gets the shares of the `steps`,
    each for `interval` seconds, then the rest; requests that meet all of `match` go to it from
    the beginning. `blue-green`: all new ones are brought up beside the old ones, which are
    switched off at once, and kept for `keep` seconds. `max_surge` replicas more than wanted
    may run on the way, `max_unavailable` fewer may be ready (a number, or a percentage of the
    wanted ones); without them `update_config` says.
    """

    strategy: Literal["rolling", "canary", "blue-green"] = "rolling"
    steps: tuple[Percent, ...] = (0.05, 0.25, 0.5)
    interval: Duration = 30.0
    match: tuple[str, ...] = ()
    keep: Duration = 300.0
    max_surge: Amount = ""
    max_unavailable: Amount = ""
    gate: Gate = Gate()
    before: Hook | None = None
    after: Hook | None = None
    on_failure: Hook | None = None

    _many_steps = field_validator("steps", mode="before")(shorthand.one_or_many)
    _many = field_validator("match", mode="before")(shorthand.one_or_many)
    _match = field_validator("match")(shorthand.check_match)
    _steps = field_validator("steps")(shorthand.check_steps)

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.match and self.strategy != "canary":
            raise ValueError("match is for a canary; expected strategy: canary")
        if {self.max_surge, self.max_unavailable} <= {"0", "0%"}:
            raise ValueError(
                "max_surge and max_unavailable are both 0, so nothing could ever be replaced; "
                "expected one of them above 0"
            )
        return self


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
    history: Annotated[Whole, Field(ge=1, le=1000)] = 10

    _short = model_validator(mode="before")(shorthand.job_schedule)
    _cron = field_validator("cron")(shorthand.check_cron)
    _timezone = field_validator("timezone")(shorthand.check_timezone)
    _words = field_validator("command", mode="before")(shorthand.command)


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
    health: Health = Health()
    balance: Balance = Balance()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    limits: LimitsSpec = LimitsSpec()
    parking: ParkingSpec = ParkingSpec()
    eject: Eject = Eject()
    allow: tuple[str, ...] | None = None
    audit: bool = False
    drain: Duration = 30.0
    rollout: Rollout = Rollout()
    trace: Share | None = None
    schedule: tuple[JobSchedule, ...] = ()

    _many_schedules = field_validator("schedule", mode="before")(shorthand.one_or_many)
    _named = field_validator("schedule")(shorthand.check_named)
    _many_routes = field_validator("routes", mode="before")(shorthand.one_or_many)
    _many_callers = field_validator("allow", mode="before")(shorthand.one_or_many)
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


class Mount(Model):
    """One volume mount; `source` empty means anonymous. `size` bounds a tmpfs; 0 does not.
    `version` stands for the content of a secret's or config's file, so that a new content is
    a new revision: a mounted file shows what it was when the replica started."""

    type: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    size: Size = 0
    version: str = ""


class Build(Model):
    """How to build the image; paths are absolute. `digest` stands for the content of the
    context when it was deployed, so that a new content is a new revision; empty: not read."""

    context: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = {}
    target: str = ""
    digest: str = ""


class Healthcheck(Model):
    """Compose `healthcheck`: the container's own check. `test` in the engine's exec form."""

    test: tuple[str, ...] = ()
    interval: Duration = 30.0
    timeout: Duration = 30.0
    retries: int = 3
    start_period: Duration = 0.0
    disable: bool = False


class Ulimit(Model):
    """One limit of the kernel on a replica's processes; -1 means none."""

    soft: int
    hard: int


class Logging(Model):
    """Where the engine keeps a replica's output; no driver means the engine's own."""

    driver: str = ""
    options: dict[str, str] = {}


class Resources(Model):
    """Limits and reservations; 0 means none."""

    cpus: float = 0.0
    memory: Size = 0
    pids: int = 0
    reserved_cpus: float = 0.0
    reserved_memory: Size = 0


class UpdateConfig(Model):
    """Compose `deploy.update_config`: how a new revision replaces the old one."""

    parallelism: int = 1
    order: Literal["start-first", "stop-first"] = "start-first"
    delay: Duration = 0.0
    monitor: Duration = 5.0
    failure_action: Literal["pause", "continue", "rollback"] = "rollback"
    max_failure_ratio: float = 0.0


class RestartPolicy(Model):
    """Compose `deploy.restart_policy`; the delay doubles with every crash, with jitter."""

    condition: Literal["none", "on-failure", "any"] = "any"
    delay: Duration = 1.0
    max_delay: Duration = 60.0
    window: Duration = 30.0


class Service(Model):
    """One service: what a replica is, how many, and how it is reached.

    `aliases` are further names on a declared network, by network. `wait_healthy` names those
    of `depends_on` that must have a healthy replica first, not only a started one. `image_id` is
    the image that the name in `image` stood for when it was deployed (64 hex digits; empty: not
    known), `image_digest` the registry's name for it (`sha256:…`), where it came from one.
    """

    name: Name
    image: str = ""
    image_id: str = ""
    image_digest: str = ""
    pull: Literal["missing", "always", "never"] = "missing"
    build: Build | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    environment: dict[str, str] = {}
    expose: tuple[int, ...] = ()
    networks: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    volumes: tuple[Mount, ...] = ()
    labels: dict[str, str] = {}
    healthcheck: Healthcheck | None = None
    stop_signal: str = "SIGTERM"
    stop_grace_period: Duration = 10.0
    replicas: int = 1
    resources: Resources = Resources()
    update: UpdateConfig = UpdateConfig()
    restart: RestartPolicy = RestartPolicy()
    placement: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    wait_healthy: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    ulimits: dict[str, Ulimit] = {}
    shm_size: Size = 0
    extra_hosts: dict[str, str] = {}
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    logging: Logging | None = None
    mesh: Mesh = Mesh()

    @property
    def port(self) -> int:
        """What replicas listen on."""
        return self.mesh.port or (self.expose[0] if self.expose else 8080)


class Network(Model):
    """A declared network; `internal` has no way out of the host."""

    name: Name
    internal: bool = False


class Quota(Model):
    """What a project may have at most, rollouts aside; 0 means without bounds. `cpus` and
    `memory` are summed from the limits of its replicas (their reservations where they have
    none)."""

    cpus: Annotated[float, Field(ge=0)] = 0.0
    memory: Size = 0
    replicas: Count = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPUs"] if self.cpus else []
        parts += [f"{self.memory / 2**30:.2f} GiB"] if self.memory else []
        return ", ".join([*parts, f"{self.replicas} replicas"] if self.replicas else parts)


class Project(Model):
    """A whole Compose file: one application. `source` is the absolute path of its first file;
    its directory is where local processes run."""

    name: Name
    services: tuple[Service, ...]
    networks: tuple[Network, ...] = ()
    volumes: tuple[str, ...] = ()
    source: str = ""
    quota: Quota | None = None

    def service(self, name: str) -> Service:
        """The service of that name. Raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
