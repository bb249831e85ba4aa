"""Two nodes of a mesh in this process: the proxy of one sends to endpoints of the other one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from meshd.node_proxy.authority import MeshAuthority, make_authority, new_request
from meshd.node_proxy.identity import PeerIdentity, PeerRole
from proxy.ipc.config import PeerConfig
from proxy.peer.files import peer_config, write_files
from proxy.peer.routes import PeerRoutes
from proxy.request.data_plane import DataPlane
from proxy.supervisor.listeners import peer_listener
from proxy.tls.certificate import load_listener
from proxy.wire.snapshot import Generation, Service, Snapshot
from proxy.worker.attachments import Attachments
from proxy.worker.handover import Handover
from proxy.worker.tls_listeners import TlsListeners
from tests.support.proxy_scene import Origin, Scene, Script, service
from tests.support.tcp_scene import TcpScene

SENDER, RECEIVER = "m1", "w1"


class Mesh:
    """The authority of a mesh, and the files of its nodes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = MeshAuthority(*make_authority(time.time()))

    def enroll(self, node: str, *, age: float = 0.0) -> PeerConfig:
        """Write the files of a node, with a certificate that was issued `age` seconds ago."""
        state = self._folder / node
        state.mkdir(parents=True, exist_ok=True)
        key, request = new_request()
        identity = PeerIdentity(PeerRole.NODE, node)
        certificate = self.authority.issue(identity, request, time.time() - age)
        write_files(state, node, key + certificate, self.authority.certificate)
        return peer_config(state, "127.0.0.1:0")


class PeerPort:
    """The port for other proxies of one node, and its data plane."""

    def __init__(self, config: PeerConfig) -> None:
        self.config = config
        self.plane = DataPlane(
            0, asyncio.get_running_loop(), peers=PeerRoutes(config), on_problem=self._print
        )
        self.problems: list[str] = []
        self.port = 0
        self._tls = TlsListeners(self.plane)
        self._server: asyncio.Server | None = None

    def _print(self, text: str) -> None:
        self.problems.append(text)

    async def start(self, port: int = 0) -> None:
        listener = peer_listener(self.config)
        assert listener.tls is not None
        filled = load_listener(listener.tls, time.time())
        handover = Handover(self.plane, Attachments(self.plane.loop), tls=self._tls)
        factory = handover.protocol_factory(msgspec.structs.replace(listener, tls=filled))
        assert factory is not None
        self._server = await self.plane.loop.create_server(factory, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.plane.close()

    def refused(self) -> dict[str, int]:
        """Take the counts of refused connections since the last call."""
        return dict(self.plane.report(0.0, 1.0).refused)


class PeerScene:
    """A sender with a listener for clients, and a receiver with endpoints.

    - `front`: the sender; `peer`: the port of the receiver.
    - `requires`: whether the snapshot forbids clear text.
    """

    def __init__(self, mesh: Mesh, front: Scene, peer: PeerPort) -> None:
        self.mesh = mesh
        self.front = front
        self.peer = peer
        self.number = 0
        self.requires = True
        self.origins: list[Origin] = []

    async def serve(self, *scripts: Script, **config: Any) -> list[Origin]:
        """Install one service with an endpoint on the receiver for each script."""
        made = [await self.front.origin(script) for script in scripts]
        self.install(service(*made, **config))
        return made

    def peers(self) -> dict[str, int]:
        return {SENDER: 0, RECEIVER: self.peer.port}

    def install(
        self,
        *services: Service,
        node: str = RECEIVER,
        peers: dict[str, int] | None = None,
        valid_from: dict[str, int] | None = None,
    ) -> None:
        """Install services on both nodes; their endpoints are on `node`."""
        self.number += 1
        on_node = tuple(
            msgspec.structs.replace(
                each,
                endpoints=tuple(msgspec.structs.replace(e, node=node) for e in each.endpoints),
            )
            for each in services
        )
        found = self.peers() if peers is None else peers
        self.peer.plane.install(
            Snapshot(
                Generation(1, self.number),
                services=on_node,
                peers=found,
                peers_valid_from=valid_from or {},
                requires_peers=self.requires,
            )
        )
        routes = () if isinstance(self.front, TcpScene) or not services else None
        self.front.install(
            *on_node,
            routes=routes,
            peers=found,
            peers_valid_from=valid_from or {},
            requires_peers=self.requires,
        )


@asynccontextmanager
async def peer_scene(
    folder: Path, kind: type[Scene] = Scene, **plane: Any
) -> AsyncIterator[PeerScene]:
    """Yield the scene; `plane` holds further arguments of the sender's data plane."""
    mesh = Mesh(folder / "mesh")
    peer = PeerPort(mesh.enroll(RECEIVER))
    await peer.start()
    front = kind({"peers": PeerRoutes(mesh.enroll(SENDER)), **plane})
    await front.listen()
    made = PeerScene(mesh, front, peer)
    try:
        yield made
    finally:
        made.peer.stop()
        await front.close()
        await asyncio.sleep(0)
