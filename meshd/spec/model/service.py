"""One service as a whole."""

from typing import Literal

from meshd.spec.model.base import Duration, Model, Name, Size
from meshd.spec.model.container import (
    Build,
    Healthcheck,
    Logging,
    Mount,
    Resources,
    RestartPolicy,
    Ulimit,
    UpdateConfig,
)
from meshd.spec.model.mesh import Mesh


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
