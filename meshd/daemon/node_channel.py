"""Makes what serves the proxies of other nodes; used by `wiring` if an address for them is given.

The modules of `meshd.node_proxy` are imported here, on use: their libraries take 10 MiB.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshd.model.event import Kind
from meshd.model.node_proxy import NodeLoad
from meshd.model.peers import PeerSettings
from meshd.publish.publisher import Publisher
from meshd.store.store import Store
from proxy.peer.files import AUTHORITY_FILE, CERTIFICATE_FILE
from proxy.wire.report import Message
from proxy.wire.snapshot import Snapshot

if TYPE_CHECKING:
    from meshd.node_proxy.proxies import NodeProxies
    from meshd.node_proxy.server import NodeServer


class NodeChannel:
    """The port for the proxies of other nodes, and what is known of them; both None without an
    address. `authority_file`: file with the authority of the mesh; empty: it is in the state.
    `note_load` takes the load of a node.

    - `take`: takes the messages of the supervisor of this host.

    `own_node` returns the node of this process, empty while it is not known. `allow_clear_text`:
    whether requests go in clear text to nodes without a proxy.
    """

    def __init__(
        self,
        address: str,
        on_message: Callable[[Message], None],
        record: Callable[[Kind, str], object],
        now: Callable[[], float],
        state: Path,
        own_node: Callable[[], str],
        note_load: Callable[[str, NodeLoad], None],
        held: Snapshot | None = None,
        authority_file: str = "",
        *,
        allow_clear_text: bool = True,
    ) -> None:
        self._address = address
        self._authority_file = authority_file
        self._state = state
        self._note_load = note_load
        self._record = record
        self._now = now
        self._own_node = own_node
        self._peers = PeerSettings(
            required=bool(address) and not allow_clear_text,
            certificate=str(state / CERTIFICATE_FILE),
            authority=str(state / AUTHORITY_FILE),
        )
        self.proxies: NodeProxies | None = None
        self.take = on_message
        if address:
            from meshd.node_proxy import proxies
            from meshd.node_proxy.snapshot import NodeSnapshots

            snapshots = NodeSnapshots(_read_file)
            self.proxies = proxies.NodeProxies(
                snapshots, on_message, record, time.monotonic, now, held
            )
            self.take = self.proxies.take_local

    def worker_name(self, number: int) -> str:
        """Return how texts name a worker."""
        return f"worker {number}" if self.proxies is None else self.proxies.worker_name(number)

    def peers(self) -> PeerSettings:
        """Return how proxies reach endpoints of other nodes; the same value until that changes."""
        if self.proxies is not None:
            ports, own, lost = self.proxies.peers, self._own_node(), self.proxies.lost()
            start, known = self.proxies.valid_from, self._peers
            if (
                ports is not known.ports
                or start is not known.valid_from
                or own != known.own_node
                or lost != known.lost
            ):
                self._peers = replace(known, ports=ports, valid_from=start, own_node=own, lost=lost)
        return self._peers

    def make_server(
        self, store: Store, publisher: Publisher, leads: Callable[[], bool]
    ) -> "NodeServer | None":
        """Return the port for nodes; None without an address. Raises BadAuthority,
        StoreWriteError."""
        if self.proxies is None:
            return None
        from meshd.node_proxy.authority import (
            MeshAuthority,
            make_authority,
            read_authority_file,
        )
        from meshd.node_proxy.server import NodeServer
        from meshd.node_proxy.table import NodeProxyTable

        table, file = NodeProxyTable(store), self._authority_file
        given = read_authority_file(file) if file else None
        keys = table.authority(lambda: make_authority(self._now()), given)
        return NodeServer(
            self._address,
            self._state,
            MeshAuthority(*keys),
            table,
            self.proxies,
            publisher.raise_above,
            leads,
            self._own_node,
            self._note_load,
            self._record,
            self._now,
        )


def _read_file(path: str) -> str:
    return Path(path).read_text()
