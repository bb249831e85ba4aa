"""Networks and volumes on the engine: created once per project, found again by their labels.

Used by `runtime` when a service is prepared or a project is taken down.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from meshd.runtime.base import RuntimeFailure, StartFailed
from meshd.runtime.docker.container import network_name, volume_name
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.firewall_rules import Bridge
from meshd.runtime.docker.observe import own_network
from meshd.spec import labels
from meshd.spec.model import Network, Service


class Networks:
    """The networks and volumes of all projects on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._listeners: list[Callable[[], Awaitable[object]]] = []
        self._engine = engine
        self._create_lock = asyncio.Lock()

    def notify(self, listener: Callable[[], Awaitable[object]]) -> None:
        """Await `listener` each time after networks were created or removed."""
        self._listeners.append(listener)

    async def _notify(self) -> None:
        for listener in self._listeners:
            await listener()

    async def ensure(self, project: str, service: Service, networks: Sequence[Network]) -> None:
        """Create the networks and volumes that `service` needs. Raises StartFailed."""
        internal = {network.name: network.internal for network in networks}
        external = {network.name for network in networks if network.external}
        kinds = [internal.get(name) for name in service.networks]
        marks = {labels.MANAGED: "1", labels.PROJECT: project}
        own = own_network(project, service.name)
        isolated = None if None in kinds else bool(kinds) and all(kinds)
        async with self._create_lock:  # the engine accepts two networks of one name
            made = False
            if not service.plain:
                made = await self._network(own, isolated, {**marks, labels.SERVICE: service.name})
            for name, kind in zip(service.networks, kinds, strict=True):
                on_engine = network_name(project, service, name)
                if name in external:
                    await self._check_network(on_engine)
                else:
                    made |= await self._network(on_engine, kind, marks)
            for mount in service.volumes:
                if mount.type == "volume" and mount.source:
                    on_engine = volume_name(project, mount)
                    if mount.external:
                        await self._check_volume(on_engine)
                    else:
                        await self._volume(on_engine, marks)
        if made:
            await self._notify()

    async def bridges(self, projects: Collection[str]) -> Sequence[Bridge]:
        """Return the networks of these projects, as the host sees them."""
        async with self._engine.request() as docker:
            found = await docker.networks.list(filters={"label": [f"{labels.MANAGED}=1"]})
        return [bridge(each) for each in found if each["Labels"].get(labels.PROJECT) in projects]

    async def gateway(self, project: str, service: str) -> tuple[str, str] | None:
        """Return the host's address on the service's own network and that network in CIDR
        notation; None if there is no such network."""
        async with self._engine.request() as docker:
            found = await docker.networks.list(filters={"name": [own_network(project, service)]})
        for network in found:
            if network["Name"] == own_network(project, service):
                return next(
                    (
                        (str(pool["Gateway"]), str(pool["Subnet"]))
                        for pool in network["IPAM"]["Config"]
                        if "Gateway" in pool
                    ),
                    None,
                )
        return None

    async def remove(self, project: str) -> None:
        """Remove the project's networks; volumes stay. Raises RuntimeFailure with the networks
        that foreign containers still use."""
        mine = [f"{labels.MANAGED}=1", f"{labels.PROJECT}={project}"]
        async with self._engine.request() as docker:
            found = await docker.networks.list(filters={"label": mine})
        held = []
        for network in found:
            in_use = RuntimeFailure(f"network {network['Name']} is in use")
            try:
                async with self._engine.request(errors={403: in_use}) as docker:
                    await (await docker.networks.get(network["Id"])).delete()
            except RuntimeFailure as failure:
                if failure is not in_use:
                    raise
                held.append(network["Name"])
        await self._notify()
        if held:
            raise RuntimeFailure(
                f"networks {', '.join(held)} of project {project} are still used by containers "
                "that meshd did not start; disconnect them and repeat"
            )

    async def _network(self, name: str, internal: bool | None, marks: dict[str, str]) -> bool:
        """Create a network; return whether it was created now. `internal` None: unknown here, so
        an existing network is accepted as it is."""
        async with self._engine.request(otherwise=StartFailed) as docker:
            found = await docker.networks.list(filters={"name": [name]})
            existing = next((network for network in found if network["Name"] == name), None)
        if existing is not None:
            if internal is None or existing["Internal"] == internal:
                return False
            await self._remove_mismatched(existing, internal)
        hint = StartFailed(
            f"no address range is left for network {name}; widen default-address-pools in the "
            "engine's daemon.json"
        )
        try:
            async with self._engine.request(otherwise=StartFailed) as docker:
                await docker.networks.create(
                    {
                        "Name": name,
                        "CheckDuplicate": True,
                        "Driver": "bridge",
                        "Internal": bool(internal),
                        "Labels": marks,
                    }
                )
        except StartFailed as failure:
            raise (hint if "non-overlapping" in str(failure) else failure) from failure
        return True

    async def _remove_mismatched(self, existing: Info, internal: bool) -> None:
        """Remove a network whose `internal` is wrong, so that it can be created again."""
        name = existing["Name"]
        if (existing.get("Labels") or {}).get(labels.MANAGED) != "1":
            raise StartFailed(
                f"network {name} exists, and its internal is not {str(internal).lower()}; remove "
                "it, or change internal in the file"
            )
        wanted = "internal" if internal else "not internal"
        in_use = StartFailed(
            f"network {name} exists and should be {wanted}; it can only change while nothing uses "
            "it: take the project down first"
        )
        async with self._engine.request(errors={403: in_use}, otherwise=StartFailed) as docker:
            await (await docker.networks.get(existing["Id"])).delete()

    async def _check_network(self, name: str) -> None:
        """Raise StartFailed if an external network does not exist."""
        async with self._engine.request(otherwise=StartFailed) as docker:
            found = await docker.networks.list(filters={"name": [name]})
        if not any(network["Name"] == name for network in found):
            raise StartFailed(
                f"the external network {name} does not exist; create it: docker network create "
                f"{name}"
            )

    async def _check_volume(self, name: str) -> None:
        """Raise StartFailed if an external volume does not exist."""
        absent = StartFailed(
            f"the external volume {name} does not exist; create it: docker volume create {name}"
        )
        async with self._engine.request(errors={404: absent}, otherwise=StartFailed) as docker:
            volume = await docker.volumes.get(name)  # type: ignore[no-untyped-call]
            await volume.show()

    async def _volume(self, name: str, marks: dict[str, str]) -> None:
        async with self._engine.request(otherwise=StartFailed) as docker:
            await docker.volumes.create(  # type: ignore[no-untyped-call]
                {"Name": name, "Labels": marks}
            )


def bridge(network: Info) -> Bridge:
    """Return a network as the host sees it, from the engine's description."""
    options = network.get("Options") or {}
    interface = options.get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
    gateways = (str(pool.get("Gateway", "")) for pool in network["IPAM"]["Config"] or ())
    gateway = next((each for each in gateways if each and ":" not in each), "")
    return Bridge(interface, gateway.partition("/")[0], bool(network["Internal"]))
