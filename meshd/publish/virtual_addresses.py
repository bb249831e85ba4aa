"""A virtual address for each mesh-managed service on each network where it is called.

Two services may so declare the same port, and `http://NAME:PORT` works as written for Compose. The
addresses are in the part of a network that the runtime leaves free; the host redirects connections
to them to the mesh (`meshd.runtime.docker.addresses`), which knows service and port by the original
destination. Containers find them by the names in their hosts file.

Owned by `gateways`. `meshd.store.virtual_addresses` keeps each address as long as the project is
up, so that it never leads to another service.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshd.model.runtime import MESH_PORT, VIRTUAL_PORT, AddressRange
from meshd.model.service_key import port_key, service_key
from meshd.runtime.docker.container import network_name
from meshd.spec.model import Project, Service
from meshd.store.virtual_addresses import Place, VirtualAddressLog
from proxy.wire.snapshot import Listener

_NO_PROJECTS: Final[Sequence[Project]] = ()


class VirtualAddresses:
    """The known free ranges, and the addresses assigned in them."""

    def __init__(self, log: VirtualAddressLog) -> None:
        self._log = log
        self._ranges: dict[str, tuple[AddressRange, ...]] = {}
        self._stored: dict[Place, str] | None = None
        self._projects = _NO_PROJECTS
        self._changing: frozenset[str] = frozenset()
        self._targets: dict[str, str] = {}
        self._services: frozenset[str] = frozenset()
        self._listeners: tuple[Listener, ...] = ()

    def set_ranges(self, project: str, ranges: Sequence[AddressRange]) -> None:
        """Take the current networks of a project that have free addresses."""
        if self._ranges.get(project, ()) != tuple(ranges):
            self._ranges[project] = tuple(ranges)
            self._refresh()

    def forget(self, project: str) -> None:
        """Forget a project whose networks are gone."""
        self._ranges.pop(project, None)
        if any(key.startswith(f"{project}/") for _, key in self._addresses()):
            self._log.forget(project)
        self._stored = None
        self._refresh()

    def set_projects(
        self, projects: Sequence[Project], changing: frozenset[str] = frozenset()
    ) -> None:
        """Take the projects to serve; assign addresses that are missing. `changing` are the plain
        services that were mesh-managed until now: containers find them at their address until
        their rollout is over."""
        self._changing = changing
        if projects is not self._projects:
            self._projects = projects
            self._refresh()

    def targets(self) -> Mapping[str, str]:
        """Return the service in the snapshot by virtual address, `HOST:PORT`."""
        return self._targets

    def listeners(self) -> tuple[Listener, ...]:
        """Return the listeners to which connections are redirected, one for each network."""
        return self._listeners

    def services(self) -> frozenset[str]:
        """Return the services that have an address, also those that became plain since: containers
        with the address may still run."""
        return self._services

    def addresses_of(self, key: str) -> tuple[str, ...]:
        """Return the addresses of a service on the networks that it shares with others."""
        project = key.partition("/")[0]
        shared = [each for each in self._ranges.get(project, ()) if not each.service]
        found = (self._address(range_, key) for range_ in shared if range_.usable)
        return tuple(address for address in found if address is not None)

    def networks_without(self) -> tuple[str, ...]:
        """Return the networks that mesh-managed services declare and that have no free addresses,
        in the projects with networks that have some."""
        found: set[str] = set()
        for project in self._projects:
            ranges = {each.network for each in self._ranges.get(project.name, ())}
            for service in project.services if ranges else ():
                if not service.plain:
                    found |= _declared(project.name, service).keys() - ranges
        return tuple(sorted(found))

    def blocks(self, project: str) -> tuple[str, ...]:
        """Return the free parts of a project's networks; empty if the mesh cannot use them."""
        return tuple(each.block for each in self._ranges.get(project, ()) if each.usable)

    def host_names(
        self, project: Project, caller: Service, plain: bool | None = None
    ) -> dict[str, str]:
        """Return the addresses by name for a container of `caller`; empty where the mesh has none.
        `plain` says whether the container is that of a plain service, if not as `caller` is now."""
        plain = caller.plain if plain is None else plain
        self._assign(project)
        usable = [each for each in self._ranges.get(project.name, ()) if each.usable]
        by_network = {each.network: each for each in usable}
        found: dict[str, str] = {}
        for service in project.services:
            key = service_key(project.name, service.name)
            if service.plain and key not in self._changing:
                continue
            for network, declared in _networks_of(project.name, caller, service, plain=plain):
                if network in by_network:
                    address = self._address(by_network[network], key)
                    if address is not None:
                        found |= dict.fromkeys(_names(service, declared), address)
                        break
        return {name: at for name, at in found.items() if name not in caller.extra_hosts}

    def _addresses(self) -> dict[Place, str]:
        if self._stored is None:
            self._stored = dict(self._log.read())
        return self._stored

    def _address(self, range_: AddressRange, key: str) -> str | None:
        """Return an assigned address if it is in the range that the network has now."""
        address = self._addresses().get((range_.network, key))
        inside = address is not None and IPv4Address(address) in IPv4Network(range_.block)
        return address if inside else None

    def _assign(self, project: Project) -> None:
        """Assign and store the addresses that services of a project lack."""
        new: dict[Place, str] = {}
        for range_ in self._ranges.get(project.name, ()):
            taken = _static_addresses(project)
            if taken.intersection(IPv4Network(range_.block)):
                continue  # a local route to the range would cut that container off
            known = self._addresses()
            used = {at for (network, _), at in known.items() if network == range_.network}
            for service in project.services:
                key = service_key(project.name, service.name)
                if _is_called_on(range_, project.name, service) and not self._address(range_, key):
                    address = choose_address(range_.block, key, used)
                    if address is not None:
                        used.add(address)
                        new[(range_.network, key)] = address
        if new:
            self._log.keep(new)
            self._addresses().update(new)

    def _refresh(self) -> None:
        self._targets = {}
        by_key: dict[str, Service] = {}
        for project in self._projects:
            self._assign(project)
            for service in project.services:
                by_key.setdefault(service_key(project.name, service.name), service)
        ranges = [each for found in self._ranges.values() for each in found]
        by_network = {each.network: each for each in ranges}
        for network, key in self._addresses():
            if network in by_network and key in by_key:
                address = self._address(by_network[network], key)
                if address is not None:
                    self._targets |= _ports(address, key, by_key[key])
        self._services = frozenset(key for _, key in self._addresses())
        self._listeners = tuple(
            Listener(
                address=f"{range_.gateway}:{VIRTUAL_PORT}",
                kind="virtual",
                caller=service_key(range_.project, range_.service),
                sources=(range_.subnet,),
            )
            for range_ in sorted(ranges, key=lambda each: each.network)
        )


def choose_address(block: str, key: str, used: Collection[str]) -> str | None:
    """Return an address of a block for a service: one that its key determines, or the next free
    one; None if all are used."""
    network = IPv4Network(block)
    first, count = int(network.network_address) + 1, network.num_addresses - 2
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    for step in range(count):
        address = str(IPv4Address(first + (start + step) % count))
        if address not in used:
            return address
    return None


def _ports(address: str, key: str, service: Service) -> dict[str, str]:
    """Return where each port of a virtual address leads: 80 to the main port, every other port to
    the same port of the container."""
    found = {
        f"{address}:{port}": port_key(key, port) if port != service.port else key
        for port in service.tcp_ports
    }
    return {**found, f"{address}:{MESH_PORT}": key}


def _is_called_on(range_: AddressRange, project: str, service: Service) -> bool:
    """Whether a service is called on a network: all are on the own network of a service."""
    if service.plain:
        return False
    return bool(range_.service) or range_.network in _declared(project, service)


def _declared(project: str, service: Service) -> dict[str, str]:
    """Return the networks that a service declares, by their names on the runtime."""
    return {network_name(project, service, name): name for name in service.networks}


def _networks_of(
    project: str, caller: Service, service: Service, *, plain: bool
) -> Iterable[tuple[str, str]]:
    """Yield the networks on which a container of `caller` reaches a service, by their names on the
    runtime and in the file: its own network, which identifies it, else those that both share."""
    if not plain:
        yield f"{project}.{caller.name}", ""
        return
    shared = _declared(project, service)
    for network in _declared(project, caller):
        if network in shared:
            yield network, shared[network]


def _names(service: Service, network: str) -> list[str]:
    """Return the names of a service on a declared network; empty: on the caller's own network,
    where all names hold."""
    found = [service.name]
    for name, aliases in service.aliases.items():
        if not network or name == network:
            found += aliases
    if service.options.container_name:
        found.append(service.options.container_name)
    return found


def _static_addresses(project: Project) -> set[IPv4Address]:
    """Return the addresses that the file gives to containers."""
    given = (each for service in project.services for each in service.attachments.values())
    return {IPv4Address(each.ipv4_address) for each in given if each.ipv4_address}
