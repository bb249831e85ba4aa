"""Names of services in running replicas follow what is wanted."""

import asyncio
from collections.abc import Mapping, Sequence

from meshd.reconcile.execute.host_names import HostNames, HostNamesWriter
from meshd.runtime.base import ReplicaNotFound

BLOCKS = ("10.1.255.0/24",)


class Replicas:
    """Replicas whose names are written."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.gone: set[str] = set()
        self.writer = HostNamesWriter(self.write)

    async def write(self, name: str, names: Mapping[str, str], blocks: Sequence[str]) -> None:
        assert blocks == BLOCKS
        self.calls.append((name, dict(names)))
        await asyncio.sleep(0)
        if name in self.gone:
            raise ReplicaNotFound(name)

    async def take(self, **wanted: HostNames) -> list[tuple[str, dict[str, str]]]:
        """Return the writes that follow."""
        self.calls.clear()
        self.writer.set_wanted(wanted)
        for _ in range(20):
            await asyncio.sleep(0)
        return self.calls


def names(started: float = 1.0, **found: str) -> HostNames:
    return HostNames(("id", started), found, BLOCKS)


async def test_only_changes_are_written() -> None:
    replicas = Replicas()

    assert await replicas.take(a=names(), b=names()) == [("a", {}), ("b", {})]
    assert await replicas.take(a=names(), b=names()) == []
    assert await replicas.take(a=names(web="10.1.255.1"), b=names()) == [
        ("a", {"web": "10.1.255.1"})
    ]
    assert await replicas.take(b=names()) == []
    assert await replicas.take(b=names(started=2.0)) == [("b", {})], "it was restarted"


async def test_a_change_while_writing_is_not_lost() -> None:
    replicas = Replicas()
    replicas.writer.set_wanted({"a": names()})
    await asyncio.sleep(0)

    assert await replicas.take(a=names(web="10.1.255.1")) == [("a", {"web": "10.1.255.1"})]


async def test_a_replica_that_is_gone_does_not_keep_others_waiting() -> None:
    replicas = Replicas()
    replicas.gone = {"a"}

    assert await replicas.take(a=names(), b=names()) == [("a", {}), ("b", {})]
    await replicas.writer.close()
