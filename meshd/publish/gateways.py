"""The addresses where the mesh listens for calls between services.

The reconciler and deployments discover and forget gateways; `meshd.publish.compile` puts the
listeners into the snapshot.

- With networks (Docker): the gateway of each service's own network, so that the network identifies
  the caller; and the gateways of networks that adopted containers share, where the source address
  does.
- On the host, the ports that mesh-managed services publish.
- Where the source address does not identify the caller (local processes, a Swarm): one address of
  the runtime's choice, where a token in the path does.
"""

from collections.abc import Collection, Mapping, Sequence

from meshd.model.runtime import MESH_PORT, MeshAddress
from meshd.publish.port_changes import PortChanges
from meshd.publish.published_ports import (
    HostPort,
    list_host_ports,
    with_chosen_ports,
)
from meshd.publish.virtual_addresses import VirtualAddresses
from meshd.runtime.base import Runtime
from meshd.spec.model import Project, Service
from proxy.ipc import address as addresses
from proxy.wire.snapshot import Listener


class Gateways:
    """The known gateways, by service key.

    - `virtual`: the virtual addresses of services on the networks of these gateways.
    - `ports`: the ports of the host that the mesh opens for services.

    `ipv6` says whether the host has IPv6. `staying`: the services whose new replicas are containers
    of this host's engine although others are in a Swarm, which takes them over; None: it takes over
    nothing.
    """

    def __init__(
        self,
        runtime: Runtime,
        virtual: VirtualAddresses,
        *,
        ipv6: bool = False,
        staying: Collection[str] | None = None,
    ) -> None:
        self._runtime = runtime
        self._staying = staying
        self.virtual = virtual
        self.ports = PortChanges(ipv6)
        self._projects: Sequence[Project] = ()
        self._host_ports: tuple[HostPort, ...] = ()
        self._taken: frozenset[str] = frozenset()
        self._held: frozenset[tuple[str, int]] = frozenset()
        self._addresses: dict[str, MeshAddress] = {}
        self._shared: dict[tuple[str, str], str] = {}
        self._listeners: tuple[Listener, ...] | None = None

    @property
    def uses_tokens(self) -> bool:
        """Whether a token identifies replicas, because their source address does not."""
        return self._runtime.capabilities.tokens

    @property
    def uses_networks(self) -> bool:
        """Whether replicas, or some that exist still, call through the network of their service."""
        return not self.uses_tokens or self._staying is not None

    def starts_with_network(self, key: str) -> bool:
        """Whether new replicas of a service call through its network."""
        return not self.uses_tokens or key in (self._staying or ())

    @property
    def has_nodes(self) -> bool:
        """Whether replicas run on several nodes."""
        return not self._runtime.is_local

    @property
    def token_address(self) -> str:
        """Where replicas call with a token; empty while it is not known, or if tokens are not
        used."""
        return self._runtime.token_address if self.uses_tokens else ""

    @property
    def token_listener(self) -> str:
        """The address of the listener for these calls. With several nodes it is the same on each,
        so that it stays open when another control process leads."""
        address = self.token_address
        if not address or not self.has_nodes:
            return address
        parsed = addresses.parse(address)
        host = "::" if ":" in parsed.host else "0.0.0.0"
        return str(addresses.Address(host, parsed.port))

    async def discover(self, project: str, services: Sequence[str]) -> None:
        """Ask the runtime for the gateways of these services. Raises RuntimeFailure."""
        if not self.uses_networks:
            return
        for address in await self._runtime.mesh_addresses(project, services):
            self._addresses[f"{project}/{address.service}"] = address
        self.virtual.set_ranges(project, await self._runtime.address_ranges(project))
        self._listeners = None

    def set_projects(
        self,
        projects: Sequence[Project],
        changing: frozenset[str] = frozenset(),
        refused: Collection[str] = (),
    ) -> None:
        """Take the projects to serve: their virtual addresses, and the ports that they publish. See
        `VirtualAddresses.set_projects`. `refused` are addresses that the mesh could not listen at:
        where the mesh chose the port, it chooses another one."""
        self.virtual.set_projects(projects, changing)
        if (projects is not self._projects or refused) and self._runtime.capabilities.networks:
            self._choose_ports(projects, frozenset(refused) - self.ports.moving)

    def _choose_ports(self, projects: Sequence[Project], taken: frozenset[str]) -> None:
        if projects is not self._projects or taken != self._taken:
            self._projects, self._taken = projects, taken
            self._host_ports = list_host_ports(projects, taken, self._held)
            self.ports.set_ports(self._host_ports)

    def hold_ports(self, listeners: Sequence[Listener]) -> None:
        """Take the listeners that are open at the start: ports that the mesh chose stay."""
        self._held = frozenset(
            (each.service, addresses.parse(each.address).port)
            for each in listeners
            if each.kind == "published"
        )

    def with_chosen_ports(self, key: str, service: Service) -> Service:
        """Return a service with the ports of the host that were chosen for it."""
        return with_chosen_ports(key, service, self._host_ports)

    def forget(self, project: str) -> None:
        """Forget a project whose networks are gone."""
        prefix = f"{project}/"
        self._addresses = {k: a for k, a in self._addresses.items() if not k.startswith(prefix)}
        self.virtual.forget(project)
        self._listeners = None

    def set_shared(self, networks: dict[tuple[str, str], str]) -> None:
        """Replace the networks that adopted containers share: (gateway, network) → project, which
        is empty if several projects use the network."""
        if networks != self._shared:
            self._shared = networks
            self._listeners = None

    def address_of(self, key: str) -> MeshAddress | None:
        """Return the gateway of a service; None if it is unknown or tokens are used."""
        return self._addresses.get(key) if self.starts_with_network(key) else None

    def listeners(self) -> tuple[Listener, ...]:
        """Return the addresses that the workers should listen on."""
        address = self.token_listener
        tokens = (Listener(address=address, kind="token"),) if address else ()
        if not self.uses_networks:
            return (*tokens, *self.ports.plan.listeners)
        if self._listeners is None:
            found = {
                f"{gateway}:{MESH_PORT}": Listener(
                    address=f"{gateway}:{MESH_PORT}",
                    kind="mesh",
                    caller=f"{project}/" if project else "",
                    sources=(network,),
                )
                for (gateway, network), project in sorted(self._shared.items())
            }
            for key, a in sorted(self._addresses.items()):
                address = f"{a.host}:{a.port}"
                sources = (a.subnet,) if a.subnet else ()
                found[address] = Listener(address, "mesh", key, sources)
            self._listeners = tuple(found.values())
        return (
            *tokens,
            *self._listeners,
            *self.virtual.listeners(),
            *self.ports.plan.listeners,
        )

    def is_ready(self, bound: Mapping[str, str]) -> bool:
        """Return whether replicas may start, because the mesh address for them is known. `bound`
        are the addresses that the workers listen on, by listener."""
        return not self.uses_tokens or self.token_listener in bound

    def token_url(self, bound: Mapping[str, str], token: str) -> str:
        """Return the URL prefix of a replica's calls; empty if tokens are not used."""
        listener = self.token_listener
        if not self.uses_tokens or listener not in bound:
            return ""
        address = self.token_address if self.has_nodes else bound[listener]
        return f"http://{address}/.mesh/{token}"
