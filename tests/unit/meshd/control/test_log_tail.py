"""The output of replicas is followed without a gap, although streams of the runtime end early."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.control import log_tail
from meshd.control.log_tail import LogTail
from meshd.model.errors import NotFound
from meshd.model.output import OutputLine, OutputQuery, ReplicaLine
from meshd.model.replica_phase import Phase
from meshd.runtime.base import ReplicaNotFound, RuntimeFailure, RuntimeUnavailable

LINES = [OutputLine(1.0, "old")] + [OutputLine(5.0, text) for text in "abbc"]


class FailingRuntime:
    """Each stream of a replica ends after a number of lines, by an error or None. At the end of the
    last one it stays open. New lines may have been written before the next stream begins."""

    def __init__(self, *ends: tuple[int, RuntimeFailure | None]) -> None:
        self.ends = list(ends)
        self.asked: list[str] = []
        self.ended = asyncio.Event()

    async def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        self.asked.append(name)
        if name == "web-2":
            raise ReplicaNotFound(name)
        is_last = not self.ends
        count, error = (len(LINES), None) if is_last else self.ends.pop(0)
        past = [line for line in LINES[:1] if query.includes(line)][: query.tail]
        for line in past + [line for line in LINES[1:count] if query.includes(line)]:
            yield line
        if error is not None:
            raise error
        if is_last:
            await self.ended.wait()


def tail_of(runtime: Any, replicas: list[SimpleNamespace]) -> LogTail:
    lookup: Any = SimpleNamespace(service=lambda *_: None, replicas=lambda *_: replicas)
    archive: Any = None
    return LogTail(runtime, lookup, archive, lambda: 3.0)


def replica(name: str, phase: Phase = Phase.READY, created_at: float = 2.0) -> SimpleNamespace:
    return SimpleNamespace(name=name, listed=True, phase=phase, created_at=created_at)


async def first(lines: AsyncIterator[ReplicaLine], count: int) -> list[ReplicaLine]:
    async with asyncio.timeout(10):
        return [await anext(lines) for _ in range(count)]


@pytest.mark.parametrize(
    "ends",
    [
        (),
        ((3, RuntimeUnavailable("cut")),),
        ((2, RuntimeUnavailable("cut")), (4, RuntimeFailure("broken")), (0, RuntimeFailure("-"))),
        ((3, None), (4, None)),  # the container was restarted
        ((0, RuntimeUnavailable("cut")), (0, RuntimeUnavailable("cut"))),
    ],
)
async def test_no_line_is_lost_or_repeated_where_a_stream_ends(
    ends: tuple[tuple[int, RuntimeFailure | None], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tail, "RETRY_FIRST", 0.001)
    runtime = FailingRuntime(*ends)
    followed = tail_of(runtime, [replica("web-1")]).follow("shop", "web", OutputQuery(0))
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        found = await first(lines, 4)
    assert found == [ReplicaLine("web-1", 5.0, text) for text in "abbc"]


async def test_all_lines_of_a_later_replica_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "REFRESH", 0.001)
    replicas = [replica("web-1", Phase.COMPLETED)]
    followed = tail_of(FailingRuntime(), replicas).follow("shop", "web", OutputQuery(1))
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        assert (await first(lines, 1))[0] == ReplicaLine("web-1", 1.0, "old")
        await first(lines, 4)
        replicas.append(replica("web-3", created_at=4.0))
        replicas.append(replica("web-4"))  # it was not listed yet
        found = await first(lines, 10)
    assert [e.text for e in found if e.replica == "web-3"] == ["old", *"abbc"]
    assert [e.text for e in found if e.replica == "web-4"] == ["old", *"abbc"]


async def test_a_replica_that_the_runtime_does_not_know_is_asked_for_with_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_tail, "REFRESH", 0.001)
    monkeypatch.setattr(log_tail, "RETRY_FIRST", 10.0)
    runtime = FailingRuntime()
    replicas = [replica("web-1"), replica("web-2")]
    followed = tail_of(runtime, replicas).follow("shop", "web", OutputQuery(0))
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        await first(lines, 4)
    assert runtime.asked == ["web-1", "web-2"]


async def test_only_the_replica_that_is_asked_for() -> None:
    runtime = FailingRuntime()
    query = OutputQuery(9, replica="web-1")
    followed = tail_of(runtime, [replica("web-3"), replica("web-1")]).follow("shop", "web", query)
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        assert {line.replica for line in await first(lines, 5)} == {"web-1"}
    assert runtime.asked == ["web-1"]


async def test_the_stream_ends_when_the_service_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything that its replicas wrote was read then."""
    monkeypatch.setattr(log_tail, "REFRESH", 0.001)
    runtime = FailingRuntime()
    replicas = [replica("web-1")]
    tail = tail_of(runtime, replicas)
    removed = False

    def found(*_: str) -> list[SimpleNamespace]:
        if removed:
            raise NotFound("project shop has no service web")
        return replicas

    monkeypatch.setattr(tail._lookup, "replicas", found)
    followed = tail.follow("shop", "web", OutputQuery(1))
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        before = await first(lines, 2)
        removed = True
        runtime.ended.set()
        async with asyncio.timeout(10):
            after = [line async for line in lines]
    assert [line.text for line in before + after] == ["old", *"abbc"]


async def test_a_fault_of_the_program_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not hidden by following the replica again and again."""
    monkeypatch.setattr(log_tail, "REFRESH", 0.001)

    class Broken:
        async def follow(self, *_: object) -> AsyncIterator[OutputLine]:
            raise ValueError("a bug")
            yield

    followed = tail_of(Broken(), [replica("web-1")]).follow("shop", "web", OutputQuery(1))
    async with aclosing(followed) as lines:  # type: ignore[type-var]
        with pytest.raises(ValueError, match="a bug"):
            await first(lines, 1)


def test_an_unknown_replica_is_an_error_before_anything_is_streamed() -> None:
    query = OutputQuery(1, replica="nonsense")
    with pytest.raises(NotFound, match="no replica 'nonsense'; replicas of web: web-1"):
        tail_of(None, [replica("web-1")]).follow("shop", "web", query)


def test_an_unknown_service_is_an_error_before_anything_is_streamed() -> None:
    def unknown(*_: object) -> None:
        raise NotFound("project shop has no service web")

    lookup: Any = SimpleNamespace(replicas=unknown)
    nothing: Any = None
    with pytest.raises(NotFound):
        LogTail(nothing, lookup, nothing, lambda: 0.0).follow("shop", "web", OutputQuery())
