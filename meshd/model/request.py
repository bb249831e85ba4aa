"""Requests to the reconciler: what the rest of the daemon may ask it to do. Pure.

`meshd.reconcile.loop.Reconciler.request` takes them, and the awaited operations of
`meshd.model.operation` (PrepareService, Forget, StartJob, StopJob, RemoveJob). Deployments, the
control facade and jobs send them.
"""

from typing import Any

import msgspec

from meshd.model.replica import Version
from meshd.model.service_key import ServiceKey
from meshd.spec.model import ContainerHook, Service


class RunPass(msgspec.Struct, frozen=True):
    """Run a pass soon: something that it reads has changed."""


class ReloadDesired(msgspec.Struct, frozen=True):
    """Read the desired state from the store now, and run a pass soon."""


class DrainRequest(msgspec.Struct, frozen=True):
    """Take one replica out of rotation in the next pass, let it finish, and replace it."""

    replica: str
    cause: str


class ReplaceReplicas(msgspec.Struct, frozen=True):
    """Replace these replicas by others of the same revision, in the steps of a rollout; keep them
    if `cause` is empty, as far as their successors have not begun."""

    replicas: tuple[str, ...]
    cause: str


class ResetBackoff(msgspec.Struct, frozen=True):
    """Ignore past failures of these versions: they no longer delay a start."""

    versions: tuple[Version, ...]


class RemoveCopies(msgspec.Struct, frozen=True):
    """Drain and remove all copies of adopted containers; start no new ones."""


class HoldServices(msgspec.Struct, frozen=True):
    """Desire no replicas of these services until they are released; requests wait meanwhile."""

    keys: tuple[ServiceKey, ...]


class ReleaseServices(msgspec.Struct, frozen=True):
    """End the hold of these services: the opposite of HoldServices."""

    keys: tuple[ServiceKey, ...]


class RunCommand(msgspec.Struct, frozen=True):
    """Run a command in a running replica, for at most `seconds`. The result is how it ended."""

    replica: str
    hook: ContainerHook
    seconds: float


class StageVolume(msgspec.Struct, frozen=True):
    """Receive a tar that RestoreVolume takes; `data` is an asynchronous iterator of bytes."""

    name: str
    data: Any


class DiscardStaged(msgspec.Struct, frozen=True):
    """Remove what was staged for a volume."""

    name: str


class ResolveServices(msgspec.Struct, frozen=True):
    """Pin the images and build contexts of services to what their names mean now; `fetch` pulls
    images first. The result are the pinned services."""

    services: tuple[Service, ...]
    fetch: bool = False
