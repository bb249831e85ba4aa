"""Compose's own words for what a replica is: image, mounts, resources, its check and restarts."""

from typing import Literal

from meshd.spec.model.base import Duration, Model, Size


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
