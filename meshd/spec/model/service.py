"""A service: one entry of `services` in a Compose file, with its `x-mesh`.

Part of `meshd.spec.model.project`; built by `meshd.spec.reader.service` and `meshd.spec.labels`.
"""

from operator import attrgetter
from typing import Annotated, Final, Literal

from pydantic import Field

from meshd.spec.model.base import Duration, Model, ServiceName, Size
from meshd.spec.model.container import (
    Build,
    ContainerHook,
    EngineOptions,
    Healthcheck,
    InitContainer,
    Logging,
    Mount,
    PublishedPort,
    Resources,
    RestartCondition,
    RestartPolicy,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from meshd.spec.model.health import HealthCheck
from meshd.spec.model.mesh import Mesh
from meshd.spec.model.network import Attachment
from meshd.spec.model.well_known_ports import WELL_KNOWN_PROTOCOLS

_NUMBER: Final = attrgetter("port")
DEFAULT_PORT: Final = 8080
"""The port of a service that declares none: the usual alternative port for HTTP."""
MAX_PORT: Final = 65535
"""The highest port of TCP and UDP."""
_NO_PROBE: Final = HealthCheck(type="none")


def url_variable(service: str) -> str:
    """Return the name of the environment variable that holds the URL of a service."""
    return "MESH_URL_" + service.upper().replace("-", "_").replace(".", "_")


class Service(Model):
    """A service: its container, the number of replicas, and how it is reached. Fields without a
    comment here have the meaning of the Compose key of the same name.

    - `plain`: it runs as under Compose: other services reach its containers directly, and the mesh
      neither balances its requests nor probes it. Services with `x-mesh` are mesh-managed
    - `image_id`: the image that `image` named at deployment (64 hex digits); empty if unknown
    - `image_digest`: its digest in the registry (`sha256:…`); empty if it has none
    - `pull`: when to pull the image at a deployment
    - `image_ports`: the TCP ports that the image declares (EXPOSE), in ascending order; empty until
      the image was inspected
    - `expose`: the TCP ports that replicas listen on, those of `ports` included
    - `ports`: the ports that are published on the host
    - `extra_hosts`: addresses by name; several addresses are separated by commas
    - `network_names`: the names on the engine of networks that have another one than `PROJECT_KEY`
    - `aliases`: additional names on declared networks, by network
    - `attachments`: addresses and options on declared networks, by network
    - `stop_signal`: empty if the file names none; then the signal of the image holds, or SIGTERM
    - `stop_grace_period`: seconds between the stop signal and the kill
    - `mode`: Compose `deploy.mode`; replicas of a job end once their work is done
    - `placement`: constraints that each runtime checks; `swarm_constraints`: those that a Swarm
      alone can check
    - `spread`: labels of nodes whose values get the same number of replicas, as in
      `deploy.placement.preferences`
    - `max_per_node`: replicas on one node; 0 means any number
    - `wait_healthy`, `wait_completed`: the services of `depends_on` that need a healthy replica
      first, or must have ended with code 0, not only have been started
    - `optional_dependencies`: those that need not start or succeed (`required: false`)
    - `restart_with`: those whose new revisions restart this service too (`restart: true`)
    - `dependency_revisions`: the revisions of `restart_with` at deployment
    - `shm_size`: the size of /dev/shm in bytes; 0 means the engine's default
    """

    name: ServiceName
    plain: bool = False
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
    image_ports: tuple[int, ...] = ()
    expose: tuple[int, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    networks: tuple[str, ...] = ()
    network_names: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    attachments: dict[str, Attachment] = {}
    volumes: tuple[Mount, ...] = ()
    labels: dict[str, str] = {}
    healthcheck: Healthcheck | None = None
    stop_signal: str = ""
    stop_grace_period: Duration = 10.0
    replicas: int = 1
    mode: Literal["replicated", "global", "replicated-job", "global-job"] = "replicated"
    resources: Resources = Resources()
    update: UpdateConfig = UpdateConfig()
    restart: RestartPolicy = RestartPolicy()
    placement: tuple[str, ...] = ()
    swarm_constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_node: Annotated[int, Field(ge=0)] = 0
    depends_on: tuple[str, ...] = ()
    wait_healthy: tuple[str, ...] = ()
    wait_completed: tuple[str, ...] = ()
    optional_dependencies: tuple[str, ...] = ()
    restart_with: tuple[str, ...] = ()
    dependency_revisions: dict[str, str] = {}
    pre_start: tuple[InitContainer, ...] = ()
    post_start: tuple[ContainerHook, ...] = ()
    pre_stop: tuple[ContainerHook, ...] = ()
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
    options: EngineOptions = EngineOptions()
    mesh: Mesh = Mesh()

    @property
    def port(self) -> int:
        """The main port: that of `x-mesh.port`, else the first that the file or the image
        declares, else the first of `x-mesh.tcp`, else that of the variable PORT in the file, else
        8080."""
        given = self.environment.get("PORT", "")
        last = int(given) if given.isdecimal() and 0 < int(given) <= MAX_PORT else DEFAULT_PORT
        declared = (*self.expose, *self.image_ports, *map(_NUMBER, self.mesh.tcp or ()))
        return self.mesh.port or next(iter(declared), last)

    @property
    def tcp_ports(self) -> tuple[int, ...]:
        """All TCP ports that the file and the image declare, the main port first."""
        declared = (self.port, *self.expose, *self.image_ports, *map(_NUMBER, self.mesh.tcp or ()))
        return tuple(dict.fromkeys(declared))

    def is_passthrough(self, port: int) -> bool:
        """Return whether the mesh passes connections to a declared port on as they are: those of
        `x-mesh.tcp`, or without that key the ports of well-known protocols, such as 5432 of
        PostgreSQL."""
        given = self.mesh.tcp
        return port in (WELL_KNOWN_PROTOCOLS if given is None else map(_NUMBER, given))

    @property
    def passthrough_ports(self) -> tuple[int, ...]:
        """The ports whose connections the mesh passes on as they are, see `is_passthrough`."""
        return tuple(port for port in self.mesh_ports if self.is_passthrough(port))

    @property
    def mesh_ports(self) -> tuple[int, ...]:
        """All ports on which the mesh listens for the service, the main port first."""
        return () if self.plain else self.tcp_ports

    @property
    def engine_ports(self) -> tuple[PublishedPort, ...]:
        """The published ports that the engine opens for each container: all of a plain service. The
        mesh opens the TCP ports of the others."""
        return tuple(port for port in self.ports if self.plain or port.protocol != "tcp")

    @property
    def exclusive_use(self) -> str | None:
        """What only one container of the service can have at a time, for people: a port of the
        host, or a fixed address; None if there is nothing."""
        for port in self.engine_ports:
            if port.published and "-" not in port.published:
                return f"port {port.published} of the host"
        for name, attachment in self.attachments.items():
            if attachment.has_address:
                return f"its address in {name}"
        return None

    @property
    def probe(self) -> HealthCheck:
        """The active probe. A plain service has none: its container's own health check counts. The
        probe of a service whose main port is not HTTP connects to the port."""
        if self.plain:
            return _NO_PROBE
        if self.is_passthrough(self.port):
            return self.mesh.health.resolve(tcp=True)
        return self.mesh.probe

    @property
    def is_global(self) -> bool:
        """Whether each node of a Swarm runs one replica. On one host it is one replica."""
        return self.mode == "global"

    @property
    def most_per_node(self) -> int:
        """Replicas on one node of a Swarm; 0: any number."""
        return 1 if self.is_global else self.max_per_node

    @property
    def constraints(self) -> tuple[str, ...]:
        """All constraints on its nodes."""
        return (*self.placement, *self.swarm_constraints)

    @property
    def runs_to_completion(self) -> bool:
        """Whether `deploy.mode` makes it a job: it is done only once its replicas have ended."""
        return self.mode in ("replicated-job", "global-job")

    @property
    def restart_condition(self) -> RestartCondition:
        """When a replica that ended is restarted: as the file says. Default: never for a plain
        service, as in Compose; always for a mesh-managed one; and for a job until it succeeds."""
        given = self.restart.condition
        if self.runs_to_completion:
            return "none" if given == "none" else "on-failure"
        return given or ("none" if self.plain else "any")

    @property
    def data_mount(self) -> Mount | None:
        """The first mount that holds data, see `Mount.holds_data`; None if there is none."""
        return next((mount for mount in self.volumes if mount.holds_data), None)

    @property
    def update_order(self) -> UpdateOrder:
        """The order in which replicas are replaced: that of the file. Default: `stop-first` for a
        plain service, as in Compose, if a mount holds data, so that no two replicas write to it,
        and if the engine publishes a port of the host; else `start-first`. Always `stop-first` if
        only one container can run at a time."""
        if self.plain and self.exclusive_use is not None:
            return "stop-first"
        if self.update.order is not None:
            return self.update.order
        alone = self.plain or self.data_mount is not None or self.engine_ports
        return "stop-first" if alone else "start-first"
