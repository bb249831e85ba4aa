"""The lease of the control processes of a mesh, in configs of the Swarm, thus in its Raft.

Used by `meshd.daemon.leadership`, over a connection that the lease itself does not limit. The
labels of one config are the lease. A write names the version of the object that it replaces, and
the Swarm refuses it if something else came first. The content of a config cannot change, so each
state of the leader is in new configs.
"""

import base64
import contextlib
import hashlib
from typing import Final

from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.lease import LeaseRecord
from meshd.runtime.swarm.api import Gone, NameTaken, OutOfSequence, SwarmApi
from proxy.ipc.address import Address

LEASE: Final = "mesh.lease"
"""Label of all configs of a lease, with its name."""
_FIELDS: Final = ("holder", "host", "token", "renewals", "records")
PART_BYTES: Final = 400_000
"""Bytes of a state in one config; the Swarm accepts 500 kB."""


class SwarmLease:
    """The lease called `name` in the Swarm whose manager `engine` is connected to. `node_port`:
    port of this host for the proxies of other nodes; 0: none."""

    def __init__(self, engine: Engine, name: str, node_port: int = 0) -> None:
        self._node_port = node_port
        self._node_address = ""
        self._api = SwarmApi(engine)
        self._engine = engine
        self._name = name
        self._id = ""
        self._spec: Info = {}

    async def read(self) -> LeaseRecord | None:
        """See `LeaseKeeper.read`."""
        await self._engine.open()
        try:
            found = await self._api.inspect("configs", f"meshd.lease.{self._name}")
        except Gone:
            return None
        self._id, self._spec = found["ID"], found["Spec"]
        marks = self._spec.get("Labels") or {}
        return LeaseRecord(
            holder=marks.get("holder", ""),
            host=marks.get("host", ""),
            token=int(marks.get("token", 0)),
            renewals=int(marks.get("renewals", 0)),
            records=marks.get("records", ""),
            version=int(found["Version"]["Index"]),
            address=marks.get("address", ""),
        )

    async def write(self, record: LeaseRecord) -> bool:
        """See `LeaseKeeper.write`."""
        marks = {LEASE: self._name, **{name: str(getattr(record, name)) for name in _FIELDS}}
        if self._node_port:
            if not self._node_address:
                self._node_address = str((await self._api.local_state())["NodeAddr"])
            marks["address"] = str(Address(self._node_address, self._node_port))
        try:
            if record.version:
                spec = {**self._spec, "Labels": marks}
                await self._api.replace("configs", self._id, record.version, spec)
            else:
                body = {"Name": f"meshd.lease.{self._name}", "Labels": marks, "Data": _encode(b"x")}
                await self._api.create("configs", body)
        except (OutOfSequence, NameTaken, Gone):
            return False
        return True

    async def save(self, content: bytes) -> str:
        """See `LeaseKeeper.save`."""
        parts = [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)]
        digest = hashlib.sha256(content).hexdigest()[:16]
        for number, part in enumerate(parts):
            body = {
                "Name": self._part(digest, number),
                "Labels": {LEASE: self._name, "records": digest},
                "Data": _encode(part),
            }
            with contextlib.suppress(NameTaken):
                await self._api.create("configs", body)
        return f"{digest}:{len(parts)}"

    async def load(self, place: str) -> bytes:
        """See `LeaseKeeper.load`."""
        digest, _, count = place.partition(":")
        parts = [
            await self._api.inspect("configs", self._part(digest, number))
            for number in range(int(count))
        ]
        content = b"".join(base64.b64decode(part["Spec"]["Data"]) for part in parts)
        if hashlib.sha256(content).hexdigest()[:16] != digest:
            raise RuntimeFailure(f"the stored state {place} of lease {self._name} is damaged")
        return content

    async def own_node(self) -> str:
        """See `LeaseKeeper.own_node`."""
        return str((await self._api.local_state())["Name"])

    async def clean(self, place: str) -> None:
        """See `LeaseKeeper.clean`."""
        kept = place.partition(":")[0]
        for each in await self._api.list("configs", {"label": [f"{LEASE}={self._name}"]}):
            marks = each["Spec"]["Labels"]
            if "holder" not in marks and marks.get("records") != kept:
                with contextlib.suppress(Gone):
                    await self._api.delete("configs", each["ID"])

    def _part(self, digest: str, number: int) -> str:
        return f"meshd.records.{self._name[:20]}.{digest}.{number}"


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
