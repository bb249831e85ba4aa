"""Following events and output over restarts of the control process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import LogLine
from meshd.model.errors import NotFound
from meshd.model.event import Event
from meshd.model.job import JobLine

PATIENCE: Final = 10.0
"""Seconds that a daemon which answered before may be away."""
AGAIN: Final = 0.2
CATCH_UP: Final = 1000
KNOWN: Final = 20


async def events(client: Client, since: int) -> AsyncIterator[Event]:
    """Events with id > since as they come. Raises NoDaemon once it stays away."""
    while True:
        try:
            async for event in client.follow_events(since):
                since = event.id
                yield event
        except NoDaemon:
            await _back(client)
        else:
            return


async def logs(client: Client, project: str, service: str, tail: int) -> AsyncIterator[LogLine]:
    """The last `tail` lines of each replica, then what comes, with what was written while
    nobody answered, up to `CATCH_UP` lines. Raises NoDaemon once it stays away."""
    seen: dict[str, deque[str]] = {}
    while True:
        try:
            async for line in client.follow_logs(project, service, tail):
                seen.setdefault(line.replica, deque(maxlen=KNOWN)).append(line.line)
                yield line
        except NoDaemon:
            for line in missed(await _lines(client, project, service), seen):
                seen.setdefault(line.replica, deque(maxlen=KNOWN)).append(line.line)
                yield line
            tail = 0
        else:
            return


async def job(client: Client, id: str) -> AsyncIterator[JobLine]:
    """All lines of a job until it ended. Raises NoDaemon once it stays away."""
    told = 0
    while True:
        seen = 0
        try:
            async for line in client.follow_job(id):
                seen += 1
                if seen > told:
                    told = seen
                    yield line
            if (await client.job(id)).is_over:
                return
        except NoDaemon:
            await _back(client)
        await asyncio.sleep(AGAIN)


def missed(past: Sequence[LogLine], seen: Mapping[str, Sequence[str]]) -> list[LogLine]:
    """What of `past` came after the lines that were seen last of each replica: all that
    follows the place where most of them stand, the last such place. Pure."""
    by_replica: dict[str, list[LogLine]] = {}
    for line in past:
        by_replica.setdefault(line.replica, []).append(line)
    found: list[LogLine] = []
    for replica, lines in by_replica.items():
        known = list(seen.get(replica, ()))
        texts = [line.line for line in lines]
        # Not all of them need stand together: a line can be lost where following began.
        common = [_in_common(texts[:end], known) for end in range(len(texts) + 1)]
        start = max(range(len(texts), -1, -1), key=common.__getitem__)
        found += lines[start if common[start] else 0 :]
    return found


def _in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of their last lines are the same."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


async def _lines(client: Client, project: str, service: str) -> Sequence[LogLine]:
    """What replicas wrote, once somebody answers who knows the service."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        try:
            return await client.logs(project, service, CATCH_UP)
        except (NoDaemon, NotFound):
            if loop.time() > end:
                raise
        await asyncio.sleep(AGAIN)


async def _back(client: Client) -> None:
    """Wait until somebody answers. Raises NoDaemon."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        try:
            await client.status()
        except NoDaemon:
            if loop.time() > end:
                raise
        except ApiFailure:
            return
        else:
            return
        await asyncio.sleep(AGAIN)
