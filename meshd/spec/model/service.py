"""A service: one entry of `services` in a Compose file, with its `x-mesh`.

Part of `meshd.spec.model.project`; built by `meshd.spec.reader.service` and `meshd.spec.labels`.
"""

from typing import Final, Literal

from meshd.spec.model.base import Duration, Model, Name, Size
from meshd.spec.model.container import (
    Build,
    EngineOptions,
    Healthcheck,
    Logging,
    Mount,
    Resources,
    RestartPolicy,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from meshd.spec.model.mesh import Mesh

DEFAULT_PORT: Final = 8080
"""The port of a service that declares none: the usual alternative port for HTTP."""


class Service(Model):
    """A service: its container, the number of replicas, and how it is reached. Fields without a
    comment here have the meaning of the Compose key of the same name.

    - `image_id`: the image that `image` named at deployment (64 hex digits); empty if unknown
    - `image_digest`: its digest in the registry (`sha256:…`); empty if it has none
    - `pull`: when to pull the image at a deployment
    - `expose`: the ports that replicas listen on
    - `extra_hosts`: addresses by name; several addresses are separated by commas
    - `network_names`: the names on the engine of networks that have another one than `PROJECT_KEY`
    - `aliases`: additional names on declared networks, by network
    - `stop_signal`: empty if the file names none; then the signal of the image holds, or SIGTERM
    - `stop_grace_period`: seconds between the stop signal and the kill
    - `wait_healthy`: the services of `depends_on` that need a healthy replica first, not only a
      started one
    - `shm_size`: the size of /dev/shm in bytes; 0 means the engine's default
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
    network_names: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    volumes: tuple[Mount, ...] = ()
    labels: dict[str, str] = {}
    healthcheck: Healthcheck | None = None
    stop_signal: str = ""
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
    options: EngineOptions = EngineOptions()
    mesh: Mesh = Mesh()

    @property
    def port(self) -> int:
        """The port that replicas listen on."""
        return self.mesh.port or (self.expose[0] if self.expose else DEFAULT_PORT)

    @property
    def data_mount(self) -> Mount | None:
        """The first mount that holds data, see `Mount.holds_data`; None if there is none."""
        return next((mount for mount in self.volumes if mount.holds_data), None)

    @property
    def update_order(self) -> UpdateOrder:
        """The order in which replicas are replaced: that of the file. Default: `stop-first` if a
        mount holds data, so that no two replicas write to it, else `start-first`."""
        if self.update.order is not None:
            return self.update.order
        return "start-first" if self.data_mount is None else "stop-first"
