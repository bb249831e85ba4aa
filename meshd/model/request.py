"""Requests to the reconciler: what the rest of the daemon may ask it to do. Pure.

`meshd.reconcile.loop.Reconciler.request` takes them, and the awaited operations of
`meshd.model.operation` (PrepareService, Forget, StartJob, StopJob, RemoveJob). Deployments, the
control facade and jobs send them.
"""

import msgspec

from meshd.model.replica import Version
from meshd.spec.model import Service


class RunPass(msgspec.Struct, frozen=True):
    """Run a pass soon: something that it reads has changed."""


class ReloadDesired(msgspec.Struct, frozen=True):
    """Read the desired state from the store now, and run a pass soon."""


class DrainRequest(msgspec.Struct, frozen=True):
    """Take one replica out of rotation in the next pass, let it finish, and replace it."""

    replica: str
    cause: str


class ResetBackoff(msgspec.Struct, frozen=True):
    """Ignore past failures of these versions: they no longer delay a start."""

    versions: tuple[Version, ...]


class RemoveCopies(msgspec.Struct, frozen=True):
    """Drain and remove all copies of adopted containers; start no new ones."""


class ResolveServices(msgspec.Struct, frozen=True):
    """Pin the images and build contexts of services to what their names mean now; `fetch` pulls
    images first. The result are the pinned services."""

    services: tuple[Service, ...]
    fetch: bool = False
