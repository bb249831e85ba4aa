"""Sends the problems in the event log to the webhooks of the projects.

`meshd.daemon.wiring` runs it. It reads events as any other subscriber does, so nothing in the mesh
waits for it; `grouping` decides what is sent when, `webhook` delivers.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meshd.model.errors import NotFound, ReaderTooSlow, Rejected
from meshd.model.event import Event
from meshd.model.silence import MAX_SECONDS, MAX_TEXT, NewSilence, Silence
from meshd.notify.grouping import GroupState, add_alert, take_message
from meshd.notify.topics import alert_of
from meshd.notify.webhook import Webhook
from meshd.spec.model import Project
from meshd.spec.model.notify import TOPICS, NotifyTarget
from meshd.store.events import EventLog
from meshd.store.silences import SilenceTable

INTERVAL: Final = 1.0
"""Seconds between two looks for messages that are due."""


@dataclass(slots=True)
class _Channel:
    """A target with its alerts, its delivery, and the projects that name it."""

    projects: frozenset[str]
    webhook: Webhook
    task: asyncio.Task[None]
    state: GroupState


class Notifier:
    """Sends what happens while `run` runs. `projects`: those that are deployed. `count` is called
    with the outcome of each message."""

    def __init__(
        self,
        events: EventLog,
        silences: SilenceTable,
        projects: Callable[[], Iterable[Project]],
        count: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._silences = silences
        self._projects = projects
        self._count = count
        self._clock = clock
        self._channels: dict[NotifyTarget, _Channel] = {}

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_events())
                tasks.create_task(self._send_due())
        finally:
            running = [channel.task for channel in self._channels.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def silences(self) -> Sequence[Silence]:
        """Return the silences that hold, oldest first."""
        return self._silences.all(self._clock())

    def create_silence(self, new: NewSilence, who: str) -> Silence:
        """Silence some problems for a while. Raises Rejected."""
        if not 0 < new.seconds <= MAX_SECONDS:
            raise Rejected(f"a silence lasts up to {MAX_SECONDS / 86400:g} days")
        if new.topic and new.topic not in TOPICS:
            raise Rejected(
                f"unknown topic {new.topic[:MAX_TEXT]!r}; expected one of {', '.join(TOPICS)}"
            )
        if new.service and not new.project:
            raise Rejected("a service is named without its project")
        if any(len(text) > MAX_TEXT for text in (new.project, new.service, new.reason)):
            raise Rejected(f"a text is too long; expected at most {MAX_TEXT} characters")
        return self._silences.create(new, who, self._clock())

    def remove_silence(self, id: str) -> None:
        """End a silence. Raises NotFound."""
        if not self._silences.remove(id, self._clock()):
            raise NotFound(f"no silence {id!r}; `meshd silence ls` lists them")

    async def _read_events(self) -> None:
        while True:
            with contextlib.suppress(ReaderTooSlow):
                async for event in self._events.subscribe():
                    self._take(event)

    def _take(self, event: Event) -> None:
        alert = alert_of(event)
        if alert is None:
            return
        self._update_channels()
        now = self._clock()
        for target, channel in self._channels.items():
            # A node or a disk concerns all projects, a service its own.
            if not alert.project or alert.project in channel.projects:
                channel.state = add_alert(channel.state, alert, target, now)

    async def _send_due(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            if not any(channel.state.pending for channel in self._channels.values()):
                continue
            self._update_channels()
            now, silences = self._clock(), self.silences()
            for target, channel in self._channels.items():
                channel.state, message = take_message(channel.state, target, silences, now)
                if message is not None:
                    channel.webhook.offer(message)

    def _update_channels(self) -> None:
        """Begin and end the delivery to targets that were added and removed."""
        wanted = _targets(self._projects())
        for target in [target for target in self._channels if target not in wanted]:
            self._channels.pop(target).task.cancel()
        for target, projects in wanted.items():
            channel = self._channels.get(target)
            if channel is not None:
                channel.projects = projects
                continue
            webhook = Webhook(target, socket.gethostname(), self._count)
            task = asyncio.create_task(webhook.run(), name=f"webhook {target.host}")
            self._channels[target] = _Channel(projects, webhook, task, GroupState())


def _targets(projects: Iterable[Project]) -> Mapping[NotifyTarget, frozenset[str]]:
    """Return the projects of each target; projects with the same webhook share its messages."""
    found: dict[NotifyTarget, frozenset[str]] = {}
    for project in projects:
        for target in project.notify:
            found[target] = found.get(target, frozenset()) | {project.name}
    return found
