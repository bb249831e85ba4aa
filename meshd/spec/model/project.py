"""A project: the services of one application, its networks, volumes, quota and backup hooks.

The result of reading a Compose file with `meshd.spec.compose.load`.
"""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Count, Duration, Model, Name, Size
from meshd.spec.model.network import Network
from meshd.spec.model.notify import NotifyTarget
from meshd.spec.model.service import Service
from meshd.spec.reader import shorthand


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


class BackupHooks(Model):
    """Commands in each running container of a service, around the backup of a volume that it
    mounts. The service keeps running then. No shell runs them.

    - `quiesce`: runs before the copy begins, and must exit with code 0. A command in place of the
      mapping sets it
    - `resume`: runs after the copy, in any case. Default: none
    - `user`: the user that runs both. Default: that of the container
    - `timeout`: seconds that each command may take
    """

    quiesce: tuple[str, ...]
    resume: tuple[str, ...] = ()
    user: str = ""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0

    _short = model_validator(mode="before")(shorthand.expand_backup_hooks)
    _words = field_validator("quiesce", "resume", mode="before")(shorthand.split_command)
    _not_empty = field_validator("quiesce")(shorthand.check_not_empty)


class Project(Model):
    """An application: the contents of its Compose files.

    - `volumes`: the names of the declared volumes
    - `source`: the absolute path of the first file; local processes run in its directory
    - `backups`: the backup hooks of services, by name of the service
    - `notify`: the webhooks that get notifications
    - `trace_url`: the address of a trace at a viewer, with `{trace_id}`
    """

    name: Name
    services: tuple[Service, ...]
    networks: tuple[Network, ...] = ()
    volumes: tuple[str, ...] = ()
    source: str = ""
    quota: Quota | None = None
    backups: dict[str, BackupHooks] = {}
    notify: tuple[NotifyTarget, ...] = ()
    trace_url: str = ""

    def service(self, name: str) -> Service:
        """Return the service of that name. Raises KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
