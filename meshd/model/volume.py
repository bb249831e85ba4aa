"""Volumes of the runtime, who uses them, and replicas that a backup has quiesced. Pure.

`meshd.runtime` reports them; `meshd.control.volumes` lists, backs up and restores them.
"""

from dataclasses import dataclass

import msgspec

from meshd.spec.model import Mount, Project


@dataclass(frozen=True, slots=True)
class RuntimeVolume:
    """One named volume on the runtime.

    - `project`: the project that it was created for, by meshd or by Compose; empty if unknown.
    - `driver`: its driver; `device`: what the driver mounts; empty for a directory of the engine.
    - `containers`: the containers that have it, whether they run or not.
    - `running`: those of them that run.
    - `incomplete`: whether a restore of it was interrupted while its content was replaced.
    """

    name: str
    project: str = ""
    driver: str = "local"
    device: str = ""
    containers: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    incomplete: bool = False


class QuiescedReplica(msgspec.Struct, frozen=True):
    """A replica in which `resume` must run, because a backup of `volume` quiesced it. Stored.

    - `resume`: the command; `user`: who runs it, empty for the user of the container.
    - `timeout`: seconds it may take.
    - `quiesces_until`: Unix time until which its `quiesce` may still run, because its end was not
      seen; `resume` is repeated until then. 0: it has ended.
    - `problem`: why it failed the last time; empty: it was not run yet.
    """

    replica: str
    project: str
    service: str
    volume: str
    resume: tuple[str, ...]
    user: str
    timeout: float
    quiesces_until: float = 0.0
    problem: str = ""


def volume_name(project: str, mount: Mount) -> str:
    """Return the runtime's name of the volume of a mount: the same as Compose's, so that both use
    the same data."""
    return mount.volume_name or f"{project}_{mount.source}"


def named_volumes(project: str, mounts: tuple[Mount, ...]) -> dict[str, Mount]:
    """Return the mounts of named volumes, by the runtime's name of the volume."""
    named = [mount for mount in mounts if mount.type == "volume" and mount.source]
    return {volume_name(project, mount): mount for mount in named}


def abandoned_volumes(before: Project, after: Project) -> list[str]:
    """Return the named volumes that services of a project mounted before and none does after."""

    def names(project: Project) -> set[str]:
        mounted = (named_volumes(project.name, service.volumes) for service in project.services)
        return {name for volumes in mounted for name in volumes}

    return sorted(names(before) - names(after))


def describe_abandoned(name: str) -> str:
    """Return the line about a volume that no service mounts any more."""
    return f"volume {name} is used by no service any more and is kept; `meshd volume rm` deletes it"
