"""Ports that services publish on the host: where, and which of them conflict. Pure.

`port_changes` makes listeners of those of mesh-managed services: the mesh opens them, so that a
rollout leaves no gap and all replicas share a port. The engine opens those of plain services, and
all that are not TCP. `meshd.control.deploy.admission` rejects conflicts.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshd.model.service_key import port_key, service_key
from meshd.spec.model import Project, PublishedPort, Service

FREE_PORTS: Final = range(61000, 65536)
"""Ports for services that leave the choice to the host: above those that Linux gives to outgoing
connections by default, so that none of them is in the way."""
_SNI_HINT: Final = ", or give both different server names: x-mesh.tcp: [{port: …, sni: …}]"
_WILDCARDS: Final = frozenset(("", "0.0.0.0", "::"))


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host that a service publishes.

    - `service`: key of the service; `plain`: whether the engine opens the port for it.
    - `target`: port of the container; `name`: name of that port of the service in the snapshot.
    - `host`: address of the host; empty for all addresses.
    - `sni`: server names of TLS clients that the port is for; empty for all that no other one is
      for. None if it is not passed on as TCP.
    - `chosen`: whether the mesh chose `port`, because the file leaves it open.
    """

    service: str
    plain: bool
    target: int
    name: str
    host: str
    port: int
    protocol: str
    sni: tuple[str, ...] | None = None
    chosen: bool = False

    def __str__(self) -> str:
        where = _address(self.host, self.port) if self.host else self.port
        return f"{where}/{self.protocol}"

    @property
    def by_engine(self) -> bool:
        """Whether the engine opens the port."""
        return self.plain or self.protocol != "tcp"

    def overlaps(self, other: "HostPort") -> bool:
        """Return whether both cannot be open at the same time."""
        return self.is_at_place_of(other) and not self._shares(other)

    def _shares(self, other: "HostPort") -> bool:
        """Whether the server names that TLS clients ask for distinguish the two."""
        if self.host != other.host or self.by_engine or other.by_engine:
            return False
        if self.sni is None or other.sni is None or not (self.sni or other.sni):
            return False
        return not set(self.sni) & set(other.sni)

    def is_at_place_of(self, other: "HostPort") -> bool:
        """Return whether both are at the same port of the same address."""
        if (self.port, self.protocol) != (other.port, other.protocol):
            return False
        if self.host == other.host or not self.host or not other.host:
            return True
        same_version = (":" in self.host) == (":" in other.host)
        return same_version and bool(_WILDCARDS & {self.host, other.host})


def list_host_ports(
    projects: Iterable[Project],
    refused: Collection[str] = (),
    held: Collection[tuple[str, int]] = (),
) -> tuple[HostPort, ...]:
    """Return the ports that services publish. A port that the file leaves to the host, or gives as
    a range, is chosen for a mesh-managed service, and left out for others: the engine chooses it
    when a container starts.

    - `refused`: addresses that the mesh could not listen at, which are not chosen.
    - `held`: (name of the port in the snapshot, port of the host) of those that are open already,
      which are chosen first.
    """
    found: list[HostPort] = []
    open_choices: list[tuple[str, Service, PublishedPort]] = []
    for project in projects:
        for service in project.services:
            key = service_key(project.name, service.name)
            for port in service.ports:
                if port.published.isdecimal():
                    found.append(_host_port(key, service, port, int(port.published)))
                elif not service.plain and port.protocol == "tcp":
                    open_choices.append((key, service, port))
    for key, service, port in sorted(open_choices, key=lambda each: (each[0], each[2].target)):
        name = _port_name(key, service, port)
        open_now = sorted(number for owner, number in held if owner == name)
        for candidate in _candidates(key, port, open_now):
            chosen = replace(_host_port(key, service, port, candidate), chosen=True)
            if _is_refused(chosen, refused):
                continue
            if not any(chosen.is_at_place_of(other) for other in found):
                found.append(chosen)
                break
    return tuple(found)


def listen_addresses(port: HostPort, *, ipv6: bool) -> list[str]:
    """Return the addresses of the host at which a port is open. `ipv6` says whether the host has
    IPv6: a port on all addresses is open there too."""
    return [port.host] if port.host else ["0.0.0.0", *(("::",) if ipv6 else ())]


def with_chosen_ports(key: str, service: Service, ports: Iterable[HostPort]) -> Service:
    """Return a service whose published ports are those that were chosen for it."""
    chosen = {
        (each.target, each.protocol, each.host): str(each.port)
        for each in ports
        if each.service == key
    }
    found = tuple(
        port
        if port.published.isdecimal()
        else port.model_copy(
            update={"published": chosen.get((port.target, port.protocol, port.host_ip), "")}
        )
        for port in service.ports
    )
    return service if found == service.ports else service.model_copy(update={"ports": found})


def find_port_conflicts(project: Project, others: Sequence[Project]) -> list[str]:
    """Return why ports of a project cannot be published, in addition to those of other projects;
    empty if they can."""
    ours, theirs = list_host_ports([project]), list_host_ports(others)
    services = {service_key(project.name, each.name): each for each in project.services}
    problems = []
    for number, port in enumerate(ours):
        name = port.service.partition("/")[2]
        taken = next((each for each in (*ours[:number], *theirs) if port.overlaps(each)), None)
        if taken is not None:
            by = taken.service
            by = by.partition("/")[2] if by.startswith(f"{project.name}/") else by
            problems.append(
                f"service {name}: port {port} of the host is already published by {by}; publish "
                f"another port{_SNI_HINT if port.sni is not None else ''}"
            )
        elif port.by_engine:
            problems += _engine_port_problems(services[port.service], port)
    return problems


def _engine_port_problems(service: Service, port: HostPort) -> Iterable[str]:
    """Yield why a port of the host does not suffice for the service's containers: the engine
    gives it to one of them at a time."""
    scale = service.mesh.scale
    most = scale.max if scale else service.replicas
    if most > 1 and port.plain:
        yield (
            f"service {service.name}: {most} replicas cannot all publish port {port} of the host; "
            "publish a range, or add x-mesh so that the mesh publishes a TCP port"
        )
    elif most > 1:
        yield (
            f"service {service.name}: {most} replicas cannot all publish port {port} of the host; "
            "the mesh balances TCP ports only, so keep one replica, or publish a range of ports"
        )
    elif service.update_order == "start-first":
        yield (
            f"service {service.name}: the old and the new replica cannot both publish port {port} "
            "of the host; remove order: start-first from deploy.update_config"
        )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_port(key: str, service: Service, port: PublishedPort, number: int) -> HostPort:
    name = _port_name(key, service, port)
    sni = None
    if port.protocol == "tcp" and service.is_passthrough(port.target):
        given = {each.port: each.sni for each in service.mesh.tcp or ()}
        sni = given.get(port.target, ())
    return HostPort(key, service.plain, port.target, name, port.host_ip, number, port.protocol, sni)


def _port_name(key: str, service: Service, port: PublishedPort) -> str:
    return key if port.target == service.port else port_key(key, port.target)


def _is_refused(port: HostPort, refused: Collection[str]) -> bool:
    """Return whether the mesh could not listen at one of the port's addresses."""
    if not refused:
        return False
    return any(_address(host, port.port) in refused for host in listen_addresses(port, ipv6=True))


def _candidates(key: str, port: PublishedPort, first: Sequence[int]) -> Iterable[int]:
    """Yield the ports of the host to choose from, in order: those of `first` that are allowed, then
    all."""
    begin, _, end = port.published.partition("-")
    allowed = range(int(begin), int(end) + 1) if end else FREE_PORTS
    yield from (number for number in first if number in allowed)
    digest = hashlib.sha256(f"{key}:{port.target}".encode()).digest()
    start = 0 if end else int.from_bytes(digest[:8])
    for step in range(len(allowed)):
        yield allowed[(start + step) % len(allowed)]
