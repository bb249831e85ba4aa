"""Follow events, logs and jobs across restarts of the control process.

Used by `events`, `logs`, `run` and `jobs logs`. After a restart each stream continues where it
stopped: events by their id, job lines by their number, log lines by their times.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import LogLine
from meshd.model.errors import NotFound
from meshd.model.event import Event
from meshd.model.job import JobLine
from meshd.model.output import CATCH_UP_LINES, OutputCursor, OutputLine, OutputQuery, UnreadLines

RECONNECT_SECONDS: Final = 30.0
"""Seconds that a daemon may not answer while its control process is replaced. It takes about two
seconds, and ten times as long on an overloaded machine."""
POLL_SECONDS: Final = 0.2
"""Seconds between two attempts to reach the daemon."""
_UNREAD: Final = OutputCursor()


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
    """Yield the lines that are asked for, then new ones, including up to `CATCH_UP_LINES` of each
    replica that were written while the daemon did not answer. Raises NoDaemon if it stays away, and
    NotFound."""
    loop = asyncio.get_running_loop()
    began, lost = time.time(), None
    cursors: dict[str, OutputCursor] = {}
    while True:
        tried = loop.time()
        unread = {name: UnreadLines(cursor) for name, cursor in cursors.items()}
        try:
            async for line in client.follow_logs(project, service, query):
                read = OutputLine(line.at, line.line)
                if line.replica not in unread or unread[line.replica].includes(read):
                    cursors[line.replica] = cursors.get(line.replica, _UNREAD).after(read)
                    yield line
        except (NoDaemon, NotFound) as error:
            if lost is None and isinstance(error, NotFound):
                raise  # later: a control process answers before it knows its services
            if lost is None or loop.time() - tried > RECONNECT_SECONDS:
                lost = loop.time()
            if loop.time() - lost > RECONNECT_SECONDS:
                raise
        else:
            return
        since = min((cursor.at for cursor in cursors.values()), default=began)
        query = OutputQuery(CATCH_UP_LINES, since=since, replica=query.replica)
        await asyncio.sleep(POLL_SECONDS)


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
