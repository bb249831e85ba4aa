"""Follow events, logs and jobs across restarts of the control process.

Used by `events`, `logs`, `run` and `jobs logs`. After a restart each stream continues where it
stopped: events by their id, job lines by their number, log lines by comparing the last ones seen.
"""

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
from meshd.model.output import OutputQuery

RECONNECT_SECONDS: Final = 10.0
"""Seconds that a daemon may not answer before a stream gives up."""
POLL_SECONDS: Final = 0.2
"""Seconds between two attempts to reach the daemon."""
CATCH_UP_LINES: Final = 1000
"""Log lines of each replica that are fetched after a restart; older ones are lost."""
COMPARED_LINES: Final = 20
"""Log lines of each replica that are kept to find where the stream stopped: enough to tell
repeated lines apart."""


async def events(client: Client, since: int) -> AsyncIterator[Event]:
    """Yield events with id > since as they happen. Raises NoDaemon if it stays away."""
    while True:
        try:
            async for event in client.follow_events(since):
                since = event.id
                yield event
        except NoDaemon:
            await _wait_for_status(client)
        else:
            return


async def logs(
    client: Client, project: str, service: str, query: OutputQuery
) -> AsyncIterator[LogLine]:
    """Yield the lines that are asked for, then new ones, including up to
    `CATCH_UP_LINES` written while the daemon did not answer. Raises NoDaemon if it stays away."""
    seen: dict[str, deque[str]] = {}
    while True:
        try:
            async for line in client.follow_logs(project, service, query):
                seen.setdefault(line.replica, deque(maxlen=COMPARED_LINES)).append(line.line)
                yield line
        except NoDaemon:
            past = await _fetch_logs(client, project, service, query.replica, bool(seen))
            for line in missed_lines(past, seen):
                seen.setdefault(line.replica, deque(maxlen=COMPARED_LINES)).append(line.line)
                yield line
            query = OutputQuery(0, replica=query.replica)
        else:
            return


async def job(client: Client, id: str) -> AsyncIterator[JobLine]:
    """Yield all lines of a job until it has ended. Raises NoDaemon if it stays away."""
    yielded = 0
    while True:
        received = 0
        try:
            async for line in client.follow_job(id):
                received += 1
                if received > yielded:
                    yielded = received
                    yield line
            if (await client.job(id)).is_over:
                return
        except NoDaemon:
            await _wait_for_status(client)
        await asyncio.sleep(POLL_SECONDS)


def missed_lines(past: Sequence[LogLine], seen: Mapping[str, Sequence[str]]) -> list[LogLine]:
    """Return the lines of `past` that follow the last lines `seen` of each replica. The position
    is the last one at which most of the seen lines match. Pure."""
    by_replica: dict[str, list[LogLine]] = {}
    for line in past:
        by_replica.setdefault(line.replica, []).append(line)
    missed: list[LogLine] = []
    for replica, lines in by_replica.items():
        known = list(seen.get(replica, ()))
        texts = [line.line for line in lines]
        # The seen lines need not all match: one can be lost where the stream began.
        matches = [_common_suffix(texts[:end], known) for end in range(len(texts) + 1)]
        start = max(range(len(texts), -1, -1), key=matches.__getitem__)
        missed += lines[start if matches[start] else 0 :]
    return missed


def _common_suffix(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the number of equal lines at the end of both."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


async def _fetch_logs(
    client: Client, project: str, service: str, replica: str, expected: bool
) -> Sequence[LogLine]:
    """Return past log lines, as soon as a daemon answers that knows the service. With `expected`
    wait until there are lines: a control process answers before it has listed the replicas, and
    lines that are missing then would be lost.

    After `RECONNECT_SECONDS` return no lines, or raise NoDaemon or NotFound.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + RECONNECT_SECONDS
    while True:
        try:
            query = OutputQuery(CATCH_UP_LINES, replica=replica)
            lines = await client.logs(project, service, query)
            if lines or not expected or loop.time() > end:
                return lines
        except (NoDaemon, NotFound):
            if loop.time() > end:
                raise
        await asyncio.sleep(POLL_SECONDS)


async def _wait_for_status(client: Client) -> None:
    """Wait until a daemon answers. Raises NoDaemon after `RECONNECT_SECONDS`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + RECONNECT_SECONDS
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
        await asyncio.sleep(POLL_SECONDS)
