"""A project: the services of one application, its networks, volumes and quota.

The result of reading a Compose file with `meshd.spec.compose.load`.
"""

from typing import Annotated

from pydantic import Field

from meshd.spec.model.base import Count, Model, Name, Size
from meshd.spec.model.network import Network
from meshd.spec.model.service import Service


class Quota(Model):
    """The upper bounds of a project, not counting extra replicas during a rollout; 0 means none.

    - `cpus`: CPU cores, summed over the replicas' limits, or their reservations if they have no
      limits
    - `memory`: bytes, summed in the same way
    - `replicas`: the number of replicas
    """

    cpus: Annotated[float, Field(ge=0)] = 0.0
    memory: Size = 0
    replicas: Count = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPUs"] if self.cpus else []
        parts += [f"{self.memory / 2**30:.2f} GiB"] if self.memory else []
        return ", ".join([*parts, f"{self.replicas} replicas"] if self.replicas else parts)


class Project(Model):
    """An application: the contents of its Compose files.

    - `volumes`: the names of the declared volumes
    - `source`: the absolute path of the first file; local processes run in its directory
    """

    name: Name
    services: tuple[Service, ...]
    networks: tuple[Network, ...] = ()
    volumes: tuple[str, ...] = ()
    source: str = ""
    quota: Quota | None = None

    def service(self, name: str) -> Service:
        """Return the service of that name. Raises KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
