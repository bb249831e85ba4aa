"""Where the mesh listens for calls between services.

On a runtime with networks: on the gateway of each service's own network, so that the network
tells who calls, and on those of networks that adopted containers share, where the source
address does. On a runtime without: at a single loopback address, where a token in the path does.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from meshd.model.runtime import MESH_PORT, MeshAddress
from meshd.runtime.base import Runtime
from proxy.wire.snapshot import Listener

TOKEN_ADDRESS: Final = "127.0.0.1:0"  # noqa: S105 (an address)


class Gateways:
    """The gateways known so far, by service key."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, MeshAddress] = {}
        self._shared: dict[tuple[str, str], str] = {}
        self._listeners: tuple[Listener, ...] | None = None

    @property
    def uses_tokens(self) -> bool:
        """Whether replicas show who they are by a token."""
        return not self._runtime.capabilities.networks

    async def learn(self, project: str, services: Sequence[str]) -> None:
        """Ask the runtime for the gateways of these services. Raises RuntimeFailure."""
        if self.uses_tokens:
            return
        for address in await self._runtime.mesh_addresses(project, services):
            self._known[f"{project}/{address.service}"] = address
        self._listeners = None

    def forget(self, project: str) -> None:
        """The project's networks are gone."""
        prefix = f"{project}/"
        self._known = {k: a for k, a in self._known.items() if not k.startswith(prefix)}
        self._listeners = None

    def share(self, networks: dict[tuple[str, str], str]) -> None:
        """What adopted containers share now: (gateway, network) → project, empty for several."""
        if networks != self._shared:
            self._shared = networks
            self._listeners = None

    def of(self, key: str) -> MeshAddress | None:
        """The gateway of a service; None when unknown, or where tokens are used."""
        return self._known.get(key)

    def listeners(self) -> tuple[Listener, ...]:
        """What the workers are to listen on."""
        if self.uses_tokens:
            return (Listener(address=TOKEN_ADDRESS, kind="token"),)
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
            for key, a in sorted(self._known.items()):
                address = f"{a.host}:{a.port}"
                sources = (a.subnet,) if a.subnet else ()
                found[address] = Listener(address, "mesh", key, sources)
            self._listeners = tuple(found.values())
        return self._listeners

    def may_start(self, bound: Mapping[str, str]) -> bool:
        """Whether replicas can be told where the mesh is."""
        return not self.uses_tokens or TOKEN_ADDRESS in bound

    def token_base(self, bound: Mapping[str, str], token: str) -> str:
        """The URL prefix of a replica's calls; empty where tokens are not used."""
        if not self.uses_tokens or TOKEN_ADDRESS not in bound:
            return ""
        return f"http://{bound[TOKEN_ADDRESS]}/.mesh/{token}"
