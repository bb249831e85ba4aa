"""A `VolumeControl` over volumes in memory."""

from collections.abc import AsyncIterator, Sequence

from meshd.api.dto import VolumeStatus
from meshd.model.errors import NotFound, Rejected
from meshd.runtime.base import VolumeFailure


class FakeVolumeControl:
    """`content` has the chunks of each volume; `failing` ends a read after its first chunk."""

    def __init__(self) -> None:
        self.content: dict[str, list[bytes]] = {"shop_data": [b"one", b"two"]}
        self.failing = False
        self.calls: list[tuple[object, ...]] = []

    async def all(self) -> Sequence[VolumeStatus]:
        return [VolumeStatus(name, "shop", ("shop/db",)) for name in self.content]

    async def read(self, name: str, live: bool, who: str) -> AsyncIterator[bytes]:
        self.calls.append(("read", name, live, who))
        if name not in self.content:
            raise NotFound(f"there is no volume {name!r}")
        for chunk in self.content[name]:
            yield chunk
            if self.failing:
                raise VolumeFailure("the engine ended the archive early")

    async def check_restore(self, name: str, force: bool) -> str:
        if not force:
            raise Rejected(f"volume {name} is not empty; --force replaces its content")
        return name

    async def restore(self, name: str, data: AsyncIterator[bytes], force: bool, who: str) -> None:
        self.content[name] = [b"".join([chunk async for chunk in data])]
        self.calls.append(("restore", name, force, who))

    async def remove(self, name: str, who: str) -> None:
        self.calls.append(("remove", name, who))
        if name not in self.content:
            raise NotFound(f"there is no volume {name!r}")
        del self.content[name]
