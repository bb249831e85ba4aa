"""Log lines that were written while the daemon did not answer."""

from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import LogLine
from meshd.cli import follow
from meshd.cli.follow import missed_lines
from meshd.model.output import OutputQuery


@pytest.mark.parametrize(
    ("past", "seen", "new"),
    [
        ("a b c", "a b", "c"),
        ("a b c", "c", ""),
        ("a b c", "", "a b c"),
        ("c d", "a b", "c d"),  # more was written than is kept: return what is left
        ("tick tick tick x", "tick tick", "x"),
        ("b c d e", "a b c", "d e"),
        ("a lost b c", "a b", "c"),  # a line that the stream did not contain
        ("", "a", ""),
    ],
)
def test_missed_lines_follow_the_last_seen_ones(past: str, seen: str, new: str) -> None:
    lines = [LogLine("web-1", word) for word in past.split()]
    other = [LogLine("web-2", "x")]
    got = missed_lines([*lines, *other], {"web-1": seen.split(), "web-2": ["x"]})
    assert [line.line for line in got] == new.split()


class RestartedClient:
    """A client whose daemon is replaced once: the new one lists its replicas a little later."""

    def __init__(self) -> None:
        self._streams = [["a"], ["c"]]
        self._past = [[], ["a", "b"]]

    async def follow_logs(self, *_: object) -> AsyncIterator[LogLine]:
        for word in self._streams.pop(0):
            yield LogLine("web-1", word)
        if self._streams:
            raise NoDaemon("connection lost")

    async def logs(self, *_: object) -> Sequence[LogLine]:
        return [LogLine("web-1", word) for word in self._past.pop(0)]


async def test_no_line_is_lost_while_the_new_daemon_lists_its_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    client = cast("Client", RestartedClient())
    lines = [line.line async for line in follow.logs(client, "shop", "web", OutputQuery(10))]
    assert lines == ["a", "b", "c"]
