"""Networks and volumes on the engine: created once per project, found again by their labels.

Used by `runtime` when a service is prepared or a project is taken down.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from meshd.model.runtime import AddressRange
from meshd.model.volume import volume_name
from meshd.runtime.base import RuntimeFailure, StartFailed
from meshd.runtime.docker.addresses.ranges import address_range, divide, divide_given
from meshd.runtime.docker.addresses.redirection_rules import Redirect
from meshd.runtime.docker.container import network_name
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.firewall_rules import Bridge
from meshd.runtime.docker.observe import own_network
from meshd.spec import labels
from meshd.spec.model import AddressPool, Mount, Network, Service

DIVIDE_ATTEMPTS: Final = 3
"""Times that a network is created with a free part, before it is created without one: another
client of the engine may take the range in between."""


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
        declared = {network.name: network for network in networks}
        wanted = [declared.get(name) for name in service.networks]
        kinds = [None if each is None else each.internal for each in wanted]
        marks = {labels.MANAGED: "1", labels.PROJECT: project}
        own = own_network(project, service.name)
        isolated = None if None in kinds else bool(kinds) and all(kinds)
        async with self._create_lock:  # the engine accepts two networks of one name
            made = False
            if not service.plain:
                body = create_body(own, isolated, {**marks, labels.SERVICE: service.name})
                made = await self._network(body, isolated)
            for name, network in zip(service.networks, wanted, strict=True):
                on_engine = network_name(project, service, name)
                if network is not None and network.external:
                    await self._check_network(on_engine)
                else:
                    internal = None if network is None else network.internal
                    body = create_body(on_engine, internal, marks, network or Network(name=name))
                    static = () if network is None else network.static_addresses
                    made |= await self._network(body, internal, static)
            for mount in service.volumes:
                if mount.type == "volume" and mount.source:
                    on_engine = volume_name(project, mount)
                    if mount.external:
                        await self._check_volume(on_engine)
                    else:
                        await self._volume(on_engine, mount, marks)
        if made:
            await self._notify()

    async def _managed(self, *marks: str) -> list[Info]:
        """Return the networks of meshd with these labels, without those of a Swarm, in which the
        same project may run (`meshd migrate`)."""
        filters = {"label": [f"{labels.MANAGED}=1", *marks]}
        async with self._engine.request() as docker:
            found = await docker.networks.list(filters=filters)
        return [network for network in found if network.get("Scope") != "swarm"]

    async def bridges(self, projects: Collection[str]) -> Sequence[Bridge]:
        """Return the networks of these projects, as the host sees them."""
        found = await self._managed()
        bridges = []
        for network in found:
            if network["Labels"].get(labels.PROJECT) in projects:
                seen = bridge(network)
                free = address_range(network, seen, usable=True)
                bridges.append(seen if free is None else replace(seen, block=free.block))
        return bridges

    async def redirects(self, projects: Collection[str]) -> Sequence[Redirect]:
        """Return the networks of these projects that have a free part, as the host sees them."""
        found = await self._managed()
        redirects = []
        for network in found:
            if network["Labels"].get(labels.PROJECT) in projects:
                seen = bridge(network)
                free = address_range(network, seen, usable=True)
                if free is not None:
                    redirects.append(Redirect(seen.interface, free.block, seen.gateway))
        return redirects

    async def address_ranges(self, project: str, *, usable: bool) -> Sequence[AddressRange]:
        """Return the project's networks that have a free part."""
        found = await self._managed(f"{labels.PROJECT}={project}")
        ranges = [address_range(each, bridge(each), usable=usable) for each in found]
        return sorted((each for each in ranges if each), key=lambda each: each.network)

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
        found = await self._managed(f"{labels.PROJECT}={project}")
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

    async def _network(
        self, body: Info, internal: bool | None, static: Collection[str] = ()
    ) -> bool:
        """Create a network from the body of a create request; return whether it was created now.
        `internal` None: the network is not known here, so an existing one is accepted as it is."""
        name = body["Name"]
        async with self._engine.request(otherwise=StartFailed) as docker:
            found = await docker.networks.list(filters={"name": [name]})
            existing = next((network for network in found if network["Name"] == name), None)
        if existing is not None:
            difference = None if internal is None else find_difference(existing, body)
            if difference is None:
                return False
            await self._remove_mismatched(existing, difference)
        hint = StartFailed(
            f"no address range is left for network {name}; widen default-address-pools in the "
            "engine's daemon.json, or set a free subnet under ipam"
        )
        try:
            await self._create(body, static)
        except StartFailed as failure:
            raise (hint if "non-overlapping" in str(failure) else failure) from failure
        return True

    async def _create(self, body: Info, static: Collection[str]) -> None:
        """Create a network. If the file gives it no range for containers, leave a part of its
        addresses free, without the `static` ones that services ask for."""
        ipam = body.get("IPAM") or {}
        given = divide_given(ipam.get("Config") or [], static)
        if given is not None and body["Driver"] == "bridge":
            divided, free = given
            marks = {**body["Labels"], labels.FREE_PART: free}
            with contextlib.suppress(StartFailed):  # then as the file says
                await self._try_create(
                    {**body, "Labels": marks, "IPAM": {**ipam, "Config": divided}}
                )
                return
        if body["Driver"] == "bridge" and not ipam.get("Config"):
            for _ in range(DIVIDE_ATTEMPTS):
                pools = divide(await self._try_create(body))
                if pools is None:
                    return
                async with self._engine.request(otherwise=StartFailed) as docker:
                    await (await docker.networks.get(body["Name"])).delete()
                with contextlib.suppress(StartFailed):  # something else took the range meanwhile
                    await self._try_create({**body, "IPAM": {**ipam, "Config": pools}})
                    return
        await self._try_create(body)

    async def _try_create(self, body: Info) -> list[Info]:
        """Create a network; return its address pools. Raises StartFailed."""
        async with self._engine.request(otherwise=StartFailed) as docker:
            made = await (await docker.networks.create(body)).show()
        return list(made["IPAM"]["Config"] or [])

    async def _remove_mismatched(self, existing: Info, difference: str) -> None:
        """Remove a network that differs from the file, so that it can be created again."""
        name = existing["Name"]
        if (existing.get("Labels") or {}).get(labels.MANAGED) != "1":
            raise StartFailed(
                f"network {name} exists, and {difference}; remove it, or change the file"
            )
        in_use = StartFailed(
            f"network {name} exists, and {difference}; it can only change while nothing uses it: "
            "take the project down first"
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

    async def _volume(self, name: str, mount: Mount, marks: dict[str, str]) -> None:
        """Create a volume unless it exists. Raises StartFailed if it exists with another driver or
        other options, because it holds other data then."""
        body: Info = {"Name": name, "Labels": {**mount.volume_labels, **marks}}
        if mount.volume_driver:
            body["Driver"] = mount.volume_driver
        if mount.volume_options:
            body["DriverOpts"] = mount.volume_options
        async with self._engine.request(otherwise=StartFailed) as docker:
            found = await docker.volumes.create(body)  # type: ignore[no-untyped-call]
            info: Info = await found.show()
        driver, options = mount.volume_driver or "local", mount.volume_options
        if (info["Driver"], info.get("Options") or {}) != (driver, options):
            raise StartFailed(
                f"volume {name} exists with the driver {info['Driver']} and other options than in "
                f"the file; keep its options, give the volume another name, or remove it with its "
                f"data: docker volume rm {name}"
            )


def create_body(
    name: str, internal: bool | None, marks: dict[str, str], network: Network | None = None
) -> Info:
    """Return the body of the engine's request to create a network."""
    body: Info = {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": bool(internal),
        "Labels": marks,
    }
    if network is None:
        return body
    body["Driver"] = network.driver or "bridge"
    body["Labels"] = {**network.labels, **marks}
    if network.driver_opts:
        body["Options"] = network.driver_opts
    if network.attachable:
        body["Attachable"] = True
    if network.enable_ipv6:
        body["EnableIPv6"] = True
    if network.enable_ipv4 is not None:
        body["EnableIPv4"] = network.enable_ipv4
    ipam: Info = {}
    if network.pools:
        ipam["Config"] = [_pool(pool) for pool in network.pools]
    if network.ipam_options:
        ipam["Options"] = network.ipam_options
    if ipam or network.ipam_driver:
        body["IPAM"] = {"Driver": network.ipam_driver or "default", **ipam}
    return body


def _pool(pool: AddressPool) -> Info:
    given = {
        "Subnet": pool.subnet,
        "IPRange": pool.ip_range,
        "Gateway": pool.gateway,
        "AuxiliaryAddresses": pool.aux_addresses,
    }
    return {name: value for name, value in given.items() if value}


def find_difference(existing: Info, body: Info) -> str | None:
    """Return how a network on the engine differs from what the file sets, for people; None if it
    does not. What the file does not set is not compared."""
    if bool(existing["Internal"]) != body["Internal"]:
        return "should be internal" if body["Internal"] else "should not be internal"
    if existing["Driver"] != body["Driver"]:
        return f"its driver is {existing['Driver']} instead of {body['Driver']}"
    options = existing.get("Options") or {}
    for key, value in body.get("Options", {}).items():
        if options.get(key) != value:
            return f"its option {key} is {options.get(key, 'not set')} instead of {value}"
    if body.get("EnableIPv6") and not existing.get("EnableIPv6"):
        return "it has no IPv6"
    pools = existing["IPAM"].get("Config") or []
    for wanted in body.get("IPAM", {}).get("Config", ()):
        if not any(wanted.items() <= pool.items() for pool in map(_written_pool, pools)):
            return f"it does not have the subnet {wanted.get('Subnet', '')} of the file as written"
    return None


def _written_pool(pool: Info) -> Info:
    """Return a pool as the file writes it: a gateway has no prefix length."""
    gateway = str(pool.get("Gateway", "")).partition("/")[0]
    return {**pool, "Gateway": gateway}


def bridge(network: Info) -> Bridge:
    """Return a network as the host sees it, from the engine's description."""
    options = network.get("Options") or {}
    interface = options.get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
    # The gateway of another kind of network (macvlan) is a router somewhere else.
    pools = network["IPAM"]["Config"] or () if network.get("Driver", "bridge") == "bridge" else ()
    gateways = (str(pool.get("Gateway", "")) for pool in pools)
    gateway = next((each for each in gateways if each and ":" not in each), "")
    return Bridge(interface, gateway.partition("/")[0], bool(network["Internal"]))
