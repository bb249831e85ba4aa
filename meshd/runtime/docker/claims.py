"""Which mesh owns a project on this engine: an empty, labelled volume per project.

A volume, because the engine creates one of a name at most and answers with the existing one:
creating it is the claim. It needs no address range and survives daemon and engine. Used by
`runtime`; the rules are in `meshd.reconcile.ownership`.

The engine removes a volume by its name only. So another mesh that saw the same holder end may
remove the claim that has just replaced that one. The mesh that replaced a claim reads it again a
moment later.
"""

import asyncio
from collections.abc import Mapping

from meshd.model.runtime import Holder
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.engine import Engine
from meshd.spec import labels

CLAIM = "mesh.claim"
HOST, STATE = "mesh.claim.host", "mesh.claim.state"
TRIES = 3
"""Attempts to create the claim while another process removes it."""
SETTLE_SECONDS = 0.5
"""Seconds until a claim that replaced another one is read again: longer than the removal of a claim
takes, from the look at its holder to the answer. A mesh that takes longer is noticed by the next
refresh."""


def volume_of(project: str) -> str:
    """Return the name of a project's claim. Declared volumes have no dots, so none is called so."""
    return f"meshd.claim.{project}"


class EngineClaims:
    """The claims on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def all(self) -> Mapping[str, Holder]:
        """See `Runtime.claims`."""
        async with self._engine.request() as docker:
            found = await docker.volumes.list(filters={"label": [CLAIM]})  # type: ignore[no-untyped-call]
        return {
            volume["Labels"][CLAIM]: _holder(volume["Labels"]) for volume in found["Volumes"] or ()
        }

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None) -> Holder:
        """See `Runtime.claim`."""
        if instead_of is not None:
            await self.unclaim(project, instead_of)
        wanted = {
            "Name": volume_of(project),
            "Labels": {
                CLAIM: project,
                labels.INSTANCE: holder.instance,
                HOST: holder.host,
                STATE: holder.state,
            },
        }
        for _ in range(TRIES):
            async with self._engine.request() as docker:
                await docker.volumes.create(wanted)  # type: ignore[no-untyped-call]
            found = await self._of(project)
            if instead_of is not None and found == holder:
                await asyncio.sleep(SETTLE_SECONDS)
                found = await self._of(project)
            if found is not None:
                return found
        raise RuntimeFailure(f"volume {volume_of(project)} is removed as soon as it is created")

    async def unclaim(self, project: str, holder: Holder) -> None:
        """See `Runtime.unclaim`."""
        gone = _Gone()
        try:
            async with self._engine.request(errors={404: gone}) as docker:
                volume = await docker.volumes.get(volume_of(project))  # type: ignore[no-untyped-call]
                if _holder((await volume.show())["Labels"] or {}) == holder:
                    await volume.delete()
        except _Gone:
            return

    async def _of(self, project: str) -> Holder | None:
        try:
            async with self._engine.request(errors={404: _Gone()}) as docker:
                volume = await docker.volumes.get(volume_of(project))  # type: ignore[no-untyped-call]
                return _holder((await volume.show())["Labels"] or {})
        except _Gone:
            return None


class _Gone(RuntimeFailure):
    """The volume does not exist."""


def _holder(marks: Mapping[str, str]) -> Holder:
    return Holder(marks.get(labels.INSTANCE, ""), marks.get(HOST, ""), marks.get(STATE, ""))
