"""One application: the services of a project, its networks and volumes, and its quota."""

from typing import Annotated

from pydantic import Field

from meshd.spec.model.base import Count, Model, Name, Size
from meshd.spec.model.service import Service


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
