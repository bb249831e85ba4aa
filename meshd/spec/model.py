"""The spec: what should run, as plain frozen values after reading and checking.

Durations are seconds, sizes bytes. The models refuse unknown fields; `compose` turns their
errors into ones that name file and line.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    it restarted; it must become healthy within `start_timeout`."""

    type: Literal["http", "tcp", "none"] = "http"
    path: str = "/healthz"
    interval: float = 1.0
    timeout: float = 1.0
    failures: int = 3
    start_timeout: float = 60.0


class Objective(Model):
    """`share` percent of the requests are answered within `latency` seconds."""

    latency: float
    share: float = 95.0


class Scale(Model):
    """How many replicas. `p95: 200ms` is short for `objective: {latency: 200ms, share: 95}`.
    With neither objective nor concurrency given, only min (= `deploy.replicas`) holds."""

    min: int = 1
    max: int = 1
    objective: Objective | None = None
    concurrency: float | None = None
    rps: float | None = None
    down_window: float | None = None


class RouteSpec(Model):
    """A public route to the service: host (exact, `*.suffix` or `*`) and path prefix."""

    host: str = "*"
    path: str = "/"
    strip: bool = False


class Balance(Model):
    """Balancing policy; see `proxy.wire.snapshot.Balance`."""

    algorithm: Algorithm = "hot-cold"
    hash_by: str = ""
    sticky_cookie: str = ""
    slow_start: float = 0.0
    panic: float = 0.5


class Timeouts(Model):
    """Request deadlines; see `proxy.wire.snapshot.Timeouts`. 0 switches one off."""

    connect: float = 2.0
    first_byte: float = 60.0
    idle: float = 300.0
    request: float = 0.0


class Retries(Model):
    """Retry policy; see `proxy.wire.snapshot.Retries`."""

    attempts: int = 2
    budget: float = 0.2
    reserve: float = 10.0
    body_limit: int = 65536
    status: tuple[int, ...] = (502, 503)
    hedge_after: float = 0.0


class LimitsSpec(Model):
    """Connection and concurrency bounds; see `proxy.wire.snapshot.Limits`."""

    endpoint_connections: int = 0
    endpoint_in_flight: int = 0
    service_in_flight: int = 0
    pending: int = 1024
    pending_timeout: float = 5.0
    adaptive: bool = False


class ParkingSpec(Model):
    """Waiting for the first ready replica; see `proxy.wire.snapshot.Parking`."""

    requests: int = 1024
    bytes: int = 16 * 1024 * 1024
    timeout: float = 10.0


class Eject(Model):
    """Passive ejection; see `proxy.wire.snapshot.Ejection`."""

    consecutive: int = 5
    base: float = 5.0
    longest: float = 300.0
    share: float = 0.5
    success_rate: bool = True
    latency_factor: float = 0.0


class Mesh(Model):
    """`x-mesh` of a service: what Compose has no word for.

    `port` is what replicas listen on (told to them as $PORT); None picks the first of
    `expose`/`ports`, or 8080. `allow` names the services that may call this one; None lets
    all. `drain` bounds how long a leaving replica may finish what it has.
    """

    port: int | None = None
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
    drain: float = 30.0


class Mount(Model):
    """One volume mount; `source` empty means anonymous."""

    type: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False


class Build(Model):
    """How to build the image; paths are absolute."""

    context: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = {}
    target: str = ""


class Healthcheck(Model):
    """Compose `healthcheck`: the container's own check. `test` in the engine's exec form."""

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    disable: bool = False


class Resources(Model):
    """Limits and reservations; 0 means none."""

    cpus: float = 0.0
    memory: int = 0
    pids: int = 0
    reserved_cpus: float = 0.0
    reserved_memory: int = 0


class UpdateConfig(Model):
    """Compose `deploy.update_config`: how a new revision replaces the old one."""

    parallelism: int = 1
    order: Literal["start-first", "stop-first"] = "start-first"
    delay: float = 0.0
    monitor: float = 5.0
    failure_action: Literal["pause", "continue", "rollback"] = "rollback"
    max_failure_ratio: float = 0.0


class RestartPolicy(Model):
    """Compose `deploy.restart_policy`; the delay doubles with every crash, with jitter."""

    condition: Literal["none", "on-failure", "any"] = "any"
    delay: float = 1.0
    max_delay: float = 60.0
    window: float = 30.0


class Service(Model):
    """One service: what a replica is, how many, and how it is reached."""

    name: Name
    image: str = ""
    build: Build | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    environment: dict[str, str] = {}
    expose: tuple[int, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[Mount, ...] = ()
    labels: dict[str, str] = {}
    healthcheck: Healthcheck | None = None
    stop_signal: str = "SIGTERM"
    stop_grace_period: float = 10.0
    replicas: int = 1
    resources: Resources = Resources()
    update: UpdateConfig = UpdateConfig()
    restart: RestartPolicy = RestartPolicy()
    placement: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    mesh: Mesh = Mesh()

    @property
    def port(self) -> int:
        """What replicas listen on."""
        return self.mesh.port or (self.expose[0] if self.expose else 8080)


class Network(Model):
    """A declared network; `internal` has no way out of the host."""

    name: Name
    internal: bool = False


class Project(Model):
    """A whole Compose file: one application."""

    name: Name
    services: tuple[Service, ...]
    networks: tuple[Network, ...] = ()
    volumes: tuple[str, ...] = ()
    source: str = ""

    def service(self, name: str) -> Service:
        """The service of that name. Raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
