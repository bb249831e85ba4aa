"""Secrets and configs of Compose files, as secrets of the Swarm.

Both are secrets there: only the tasks that use one can read it, and it is never on the disk of a
node. A secret belongs to one revision of a service, so that it never changes. Used by
`SwarmRuntime`.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import RuntimeFailure, StartFailed
from meshd.runtime.swarm.api import Gone, NameTaken, SwarmApi
from meshd.runtime.swarm.limits import size_problem
from meshd.runtime.swarm.service_spec import secret_files, secret_name
from meshd.spec import labels
from meshd.spec.model import Mount, Service

_log = structlog.stdlib.get_logger(__name__)


def refused_files(service: Service) -> list[str]:
    """Return which secrets and configs of a service a Swarm refuses because of the size of their
    file on this host. A file that cannot be read is not among them: the Swarm may have it."""
    found = []
    for mount in secret_files(service):
        if mount.type == "file":  # see `limits.refused`
            continue
        try:
            size = Path(mount.source).stat().st_size
        except OSError:
            continue
        if problem := size_problem(size):
            found.append(f"{mount.source}, the secret or config at {mount.target}, {problem}")
    return found


class SwarmSecrets:
    """The secrets in one Swarm that meshd created. A secret without a service may be removed at
    any time, so that `using` holds those of a replica until its service exists."""

    def __init__(self, api: SwarmApi) -> None:
        self._api = api
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def using(self, replica: ReplicaSpec) -> AsyncIterator[Mapping[str, str]]:
        """Create the secrets that a replica needs and that do not exist, and yield the ids of all
        by name; none is removed meanwhile. Raises StartFailed."""
        if not secret_files(replica.service):
            yield {}
            return
        async with self._lock:
            yield await self._ensure(replica)

    async def _ensure(self, replica: ReplicaSpec) -> Mapping[str, str]:
        """See `using`. The file of a secret that exists is not read: it may be on the host of
        another manager."""
        found = {}
        for mount in secret_files(replica.service):
            name = secret_name(replica, mount)
            try:
                found[name] = await self._find(name)
            except Gone:
                found[name] = await self._create(name, replica, mount)
        return found

    async def _find(self, name: str) -> str:
        """Return the id of a secret. Raises Gone."""
        return str((await self._api.inspect("secrets", name))["ID"])

    async def _create(self, name: str, replica: ReplicaSpec, mount: Mount) -> str:
        """Create a secret and return its id."""
        body = {
            "Name": name,
            "Labels": {
                labels.MANAGED: "1",
                labels.PROJECT: replica.project,
                labels.SERVICE: replica.service.name,
                labels.REVISION: replica.revision,
            },
            "Data": base64.b64encode(await self._read(mount)).decode(),
        }
        try:
            return await self._api.create("secrets", body, otherwise=StartFailed)
        except NameTaken:  # another replica of the revision created it meanwhile
            return await self._find(name)

    async def _read(self, mount: Mount) -> bytes:
        if mount.type == "file":
            return mount.content.encode()
        try:
            return await asyncio.to_thread(Path(mount.source).read_bytes)
        except OSError as error:
            raise StartFailed(f"{mount.source} cannot be read: {error.strerror}") from error

    async def remove(self, project: str, service: str = "", revision: str = "") -> None:
        """Remove the secrets of a revision, or of a whole project, that no service uses."""
        mine = [f"{labels.MANAGED}=1", f"{labels.PROJECT}={project}"]
        if service:
            mine += [f"{labels.SERVICE}={service}", f"{labels.REVISION}={revision}"]
        async with self._lock:
            for secret in await self._api.list("secrets", {"label": mine}):
                try:
                    await self._api.delete("secrets", secret["ID"])
                except Gone:
                    continue
                except RuntimeFailure as failure:  # another replica has it
                    _log.debug("secret is kept", name=secret["Spec"]["Name"], reason=str(failure))
