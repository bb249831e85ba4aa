"""Overlay networks of a project, on all nodes of the Swarm.

Used by `SwarmRuntime` when a service is prepared or a project is taken down. What a network must
look like, and how an existing one differs, is in `meshd.runtime.docker.network`.

An engine has one network of a name. Where the engine of this host has the networks of the project
already, because it ran there before the Swarm (`meshd migrate`), the overlays have other names, and
keep them.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from meshd.runtime.base import RuntimeFailure, StartFailed, Unsupported
from meshd.runtime.docker.container import network_name
from meshd.runtime.docker.drift import OVERLAY_SUFFIX
from meshd.runtime.docker.engine import Info
from meshd.runtime.docker.network import create_body, find_difference
from meshd.runtime.swarm.api import Gone, SwarmApi
from meshd.spec import labels
from meshd.spec.model import Network, Service

DRIVERS: Final = ("", "overlay")
SUFFIX: Final = OVERLAY_SUFFIX
"""End of the name of an overlay next to a network of the engine that has the name."""
REMOVE_PAUSES: Final = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds between attempts to remove a network: tasks of removed services leave it a moment
later."""


def overlay_body(project: str, service: Service, name: str, network: Network | None) -> Info:
    """Return the body of the request that creates a network of a service. Containers that Swarm did
    not start may join it, as those of one engine may join a bridge. Raises Unsupported."""
    declared = network or Network(name=name)
    if declared.driver not in DRIVERS:
        raise Unsupported(
            f"network {name}: driver {declared.driver} does not reach over nodes; the networks of "
            "a Swarm are overlays, remove the key"
        )
    marks = {labels.MANAGED: "1", labels.PROJECT: project}
    body = create_body(network_name(project, service, name), declared.internal, marks, declared)
    return {**body, "Driver": "overlay", "Attachable": True}


class OverlayNetworks:
    """The networks of all projects in one Swarm."""

    def __init__(self, api: SwarmApi) -> None:
        self._api = api
        self._create_lock = asyncio.Lock()

    async def ensure(self, project: str, service: Service, networks: Sequence[Network]) -> None:
        """Create the networks that a service needs. Raises StartFailed, Unsupported."""
        declared = {network.name: network for network in networks}
        if not service.plain and service.networks:
            self._check_reachable(service, declared)
        async with self._create_lock:  # the engine accepts two networks of one name
            for name in service.networks:
                network = declared.get(name)
                if network is not None and network.external:
                    await self._check_external(network_name(project, service, name))
                else:
                    body = overlay_body(project, service, name, network)
                    await self._create(
                        {**body, "Name": await self.find_name(project, body["Name"])}
                    )

    async def find_names(self, project: str, service: Service) -> dict[str, str]:
        """Return the names in the Swarm of the networks of a service that have another one than
        usual, by the name in the file."""
        names = {name: network_name(project, service, name) for name in service.networks}
        found = {name: await self.find_name(project, usual) for name, usual in names.items()}
        return {name: given for name, given in found.items() if given != names[name]}

    async def find_name(self, project: str, usual: str) -> str:
        """Return the name of an overlay that is usually called `usual`: that of the one that
        exists, else one that is free."""
        mine: bool | None = None  # None: no network has that name
        with suppress(Gone):
            found = await self._api.inspect("networks", usual)
            if found.get("Scope") == "swarm":
                return usual
            mine = (found.get("Labels") or {}).get(labels.PROJECT) == project
        return await self.find_next_to(usual) or (usual + SUFFIX if mine else usual)

    async def find_next_to(self, usual: str) -> str:
        """Return the name of the overlay next to a network of the engine; empty if there is
        none."""
        with suppress(Gone):
            await self._api.inspect("networks", usual + SUFFIX)
            return usual + SUFFIX
        return ""

    def _check_reachable(self, service: Service, declared: dict[str, Network]) -> None:
        """Raise Unsupported if the proxy could not reach replicas of a mesh-managed service: a task
        on internal networks alone publishes no ports."""
        if all(name in declared and declared[name].internal for name in service.networks):
            raise Unsupported(
                f"service {service.name}: all its networks are internal, and in a Swarm the mesh "
                "reaches replicas through ports of their nodes; add a network that is not internal"
            )

    async def _create(self, body: Info) -> None:
        name = body["Name"]
        try:
            existing = await self._api.inspect("networks", name)
        except Gone:
            await self._api.create("networks", body, otherwise=StartFailed)
            return
        if not existing["Driver"]:  # it was created a moment ago; the Swarm still sets it up
            return
        difference = find_difference(existing, body)
        if difference is not None:
            raise StartFailed(
                f"network {name} exists, and {difference}; take the project down, or give the "
                "network another name"
            )

    async def _check_external(self, name: str) -> None:
        try:
            found = await self._api.inspect("networks", name)
        except Gone as gone:
            raise StartFailed(
                f"the external network {name} does not exist; create it: docker network create "
                f"--driver overlay --attachable {name}"
            ) from gone
        if found["Scope"] != "swarm":
            raise StartFailed(
                f"the external network {name} exists on one node only; the networks of a Swarm "
                "are overlays"
            )

    async def remove(self, project: str) -> None:
        """Remove the project's networks. Raises RuntimeFailure with those still in use."""
        mine = {"label": [f"{labels.MANAGED}=1", f"{labels.PROJECT}={project}"]}
        held = [each["Name"] for each in await self._api.list("networks", mine)]
        for pause in (*REMOVE_PAUSES, None):
            held = [name for name in held if not await self._try_remove(name)]
            if not held:
                return
            if pause is not None:
                await asyncio.sleep(pause)
        raise RuntimeFailure(
            f"networks {', '.join(held)} of project {project} are still used by containers or "
            "services that meshd did not start; disconnect them and repeat"
        )

    async def _try_remove(self, name: str) -> bool:
        try:
            await self._api.delete("networks", name)
        except Gone:
            return True
        except RuntimeFailure as failure:
            if "in use" in str(failure) or "active endpoints" in str(failure):
                return False
            raise
        return True
