"""Which mesh owns a project in this Swarm: a labelled config per project.

A config, because the Swarm keeps it in its Raft, for all managers, and accepts one of a name only:
creating it is the claim. Used by `SwarmRuntime`; the rules are in `meshd.reconcile.ownership`.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

from meshd.model.runtime import Holder
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.claims import CLAIM, HOST, STATE, TRIES
from meshd.runtime.swarm.api import Gone, NameTaken, SwarmApi
from meshd.spec import labels

CONTENT: Final = base64.b64encode(b"claimed by meshd\n").decode()
"""Content of a claim. The Swarm accepts no empty config."""
NAME_LENGTH: Final = 64
"""The most characters that the Swarm accepts in the name of a config."""


def config_of(project: str) -> str:
    """Return the name of a project's claim. A name that is too long ends with a hash."""
    name = f"meshd.claim.{project}"
    if len(name) <= NAME_LENGTH:
        return name
    return f"{name[: NAME_LENGTH - 17]}.{hashlib.sha256(project.encode()).hexdigest()[:16]}"


class SwarmClaims:
    """The claims in one Swarm."""

    def __init__(self, api: SwarmApi) -> None:
        self._api = api

    async def all(self) -> Mapping[str, Holder]:
        """See `Runtime.claims`."""
        found = await self._api.list("configs", {"label": [CLAIM]})
        return {each["Spec"]["Labels"][CLAIM]: _holder(each["Spec"]["Labels"]) for each in found}

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None) -> Holder:
        """See `Runtime.claim`."""
        if instead_of is not None:
            await self.unclaim(project, instead_of)
        marks = {
            CLAIM: project,
            labels.INSTANCE: holder.instance,
            HOST: holder.host,
            STATE: holder.state,
        }
        wanted = {"Name": config_of(project), "Labels": marks, "Data": CONTENT}
        for _ in range(TRIES):
            try:
                await self._api.create("configs", wanted)
            except NameTaken:
                found = await self._holder_of(project)
                if found is None:
                    continue
                return found
            return holder
        raise RuntimeFailure(f"config {config_of(project)} is removed as soon as it is created")

    async def unclaim(self, project: str, holder: Holder) -> None:
        """See `Runtime.unclaim`."""
        try:
            found = await self._api.inspect("configs", config_of(project))
            if _holder(found["Spec"].get("Labels") or {}) == holder:
                # By id: a claim of the same name may have replaced it meanwhile.
                await self._api.delete("configs", found["ID"])
        except Gone:
            return

    async def _holder_of(self, project: str) -> Holder | None:
        try:
            found = await self._api.inspect("configs", config_of(project))
        except Gone:
            return None
        return _holder(found["Spec"].get("Labels") or {})


def _holder(marks: Mapping[str, str]) -> Holder:
    return Holder(marks.get(labels.INSTANCE, ""), marks.get(HOST, ""), marks.get(STATE, ""))
