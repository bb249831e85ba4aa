"""Log lines across restarts of the daemon: none is lost, none comes twice."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import LogLine
from meshd.cli import follow
from meshd.model.errors import NotFound
from meshd.model.output import OutputQuery

OUTPUT = [("a", 10.0), ("b", 10.5), ("b", 10.5), ("c", 11.0), ("d", 12.0)]


class RestartedClient:
    """A client whose daemon is replaced after each of `cuts` lines. Each new one answers at first
    that it does not know the service, and then knows the lines since the time that is asked for."""

    def __init__(self, *cuts: int) -> None:
        self._cuts = [*cuts, len(OUTPUT)]
        self._attempts = 0
        self.queries: list[OutputQuery] = []

    async def follow_logs(self, _: str, __: str, query: OutputQuery) -> AsyncIterator[LogLine]:
        self._attempts += 1
        if self._attempts % 2 == 0:
            raise NotFound("project shop has no service web")
        self.queries.append(query)
        for text, at in OUTPUT[: self._cuts.pop(0)]:
            if at >= int(query.since):
                yield LogLine("web-1", text, at)
        if self._cuts:
            raise NoDaemon("connection lost")


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3,), (4,), (5,), (1, 1, 2, 3), (0, 0, 3)])
async def test_no_line_is_lost_or_repeated_by_restarts(
    cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(follow.time, "time", lambda: 9.0)
    fake = RestartedClient(*cuts)
    client = cast("Client", fake)
    query = OutputQuery(10, replica="web-1")
    lines = [(e.line, e.at) async for e in follow.logs(client, "shop", "web", query)]
    assert lines == OUTPUT
    assert {query.replica for query in fake.queries} == {"web-1"}


async def test_an_unknown_service_is_an_error_at_once() -> None:
    class Unknown:
        async def follow_logs(self, *_: object) -> AsyncIterator[LogLine]:
            raise NotFound("project shop has no service web")
            yield

    with pytest.raises(NotFound, match="no service web"):
        await anext(follow.logs(cast("Client", Unknown()), "shop", "web", OutputQuery()))


async def test_a_daemon_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        async def follow_logs(self, *_: object) -> AsyncIterator[LogLine]:
            raise NoDaemon("no daemon answers")
            yield

    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(follow, "RECONNECT_SECONDS", 0.01)
    with pytest.raises(NoDaemon):
        await anext(follow.logs(cast("Client", Gone()), "shop", "web", OutputQuery()))
