"""Secrets and configs of Compose files, as secrets of the Swarm.

Both are secrets there: only the tasks that use one can read it, and it is never on the disk of a
node. A secret belongs to one revision of a service, so that it never changes. Used by
`SwarmRuntime`.
"""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

import structlog

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import RuntimeFailure, StartFailed
from meshd.runtime.swarm.api import Gone, NameTaken, SwarmApi
from meshd.runtime.swarm.service_spec import secret_files, secret_name
from meshd.spec import labels
from meshd.spec.model import Mount

_log = structlog.stdlib.get_logger(__name__)


class SwarmSecrets:
    """The secrets in one Swarm that meshd created."""

    def __init__(self, api: SwarmApi) -> None:
        self._api = api

    async def ensure(self, replica: ReplicaSpec) -> Mapping[str, str]:
        """Create the secrets that a replica needs and that do not exist, and return the ids of all
        by name. The file of one that exists is not read: it may be on the host of another manager.
        Raises StartFailed."""
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
            "Data": base64.b64encode(await self._read(replica, mount)).decode(),
        }
        try:
            return await self._api.create("secrets", body, otherwise=StartFailed)
        except NameTaken:  # another replica of the revision created it meanwhile
            return await self._find(name)

    async def _read(self, replica: ReplicaSpec, mount: Mount) -> bytes:
        if mount.type == "file":
            return mount.content.encode()
        try:
            return await asyncio.to_thread(Path(mount.source).read_bytes)
        except OSError as error:
            raise StartFailed(
                f"replica {replica.name}: {mount.source} cannot be read: {error.strerror}"
            ) from error

    async def remove(self, project: str, service: str = "", revision: str = "") -> None:
        """Remove the secrets of a revision, or of a whole project, that no service uses."""
        mine = [f"{labels.MANAGED}=1", f"{labels.PROJECT}={project}"]
        if service:
            mine += [f"{labels.SERVICE}={service}", f"{labels.REVISION}={revision}"]
        for secret in await self._api.list("secrets", {"label": mine}):
            try:
                await self._api.delete("secrets", secret["ID"])
            except Gone:
                continue
            except RuntimeFailure as failure:  # another replica has it
                _log.debug("secret is kept", name=secret["Spec"]["Name"], reason=str(failure))
