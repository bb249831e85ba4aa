"""A `RecordControl` over records in memory."""

from collections.abc import AsyncGenerator, Sequence

from meshd.model.errors import NotFound
from proxy.observe.access_log import Entry
from proxy.observe.flight import Flight, RecordInfo
from proxy.observe.tap import Matcher, TapFilter, TapLine


def flight(target: str = "/a", status: int = 200, total: float = 0.1) -> Flight:
    """A request of shop/web."""
    request = Entry(
        time=1000.0,
        client="10.0.0.9",
        method="GET",
        target=target,
        version="HTTP/1.1",
        status=status,
        host="shop.test",
        service="shop/web",
        endpoint="web-1",
        total=total,
    )
    return Flight(request, "all", "", "balanced", "hot-cold", 3, 2)


class FakeRecordControl:
    """`flights` are the requests of every record."""

    def __init__(self) -> None:
        self.known = [RecordInfo("20260601-1-shop_web", 1000.0, "shop/web", "slow", 2, 4096)]
        self.flights = [
            flight(),
            flight("/slow", 200, 1.5),
            flight("/bad\x1b[2J", 502, 0.2),
        ]

    def save(self, project: str, service: str, who: str) -> RecordInfo:
        if project == "none":
            raise NotFound("there is no such service")
        key = f"{project}/{service}" if service else ""
        made = RecordInfo(f"20260601-{len(self.known) + 1}-new", 2000.0, key, f"by {who}", 1, 10)
        self.known.insert(0, made)
        return made

    def list(self) -> Sequence[RecordInfo]:
        return self.known

    def find(self, id: str) -> RecordInfo:
        for record in self.known:
            if record.id == id:
                return record
        raise NotFound(f"there is no record {id!r}")

    async def tap(self, wanted: TapFilter) -> AsyncGenerator[TapLine]:
        """Yield the requests that match, once."""
        matcher = Matcher(wanted)
        for lost, each in enumerate(self.flights):
            if matcher.matches(each.request):
                yield TapLine(each.request, lost)

    async def read(self, id: str) -> Sequence[Flight]:
        self.find(id)
        return self.flights
