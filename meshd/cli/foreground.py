"""`meshd up` once there is a daemon: deploy, show, stay, and end in order."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import DeployResult
from meshd.cli import deploy_progress, output, plan_output, tables
from meshd.cli.daemon_process import END_SECONDS, START_SECONDS, DaemonProcess
from meshd.model.errors import NotFound, Rejected
from meshd.spec.model import Project

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNASKED_SECONDS: Final = 3.0
T = TypeVar("T")


class Told(Exception):
    """Somebody told us to end."""


class Run:
    """One `meshd up`. `daemon` is the one we started, None when we joined another's; only
    what we started ourselves is ended with us."""

    def __init__(
        self,
        client: Client,
        daemon: DaemonProcess | None,
        project: Project | None,
        seconds: float,
        quiet: bool,
        take_over: bool = False,
    ) -> None:
        self._take_over = take_over
        self._client = client
        self._daemon = daemon
        self._project = project
        self._seconds = seconds
        self._quiet = quiet
        self._since = 0
        self._told = asyncio.Event()
        self._hasty = asyncio.Event()

    async def go(self, detach: bool) -> int:
        """The exit code."""
        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, self._tell)
        try:
            _, self._since = await self._client.last_events(0, lambda _: False)
            if self._project is not None:
                result = await self._unless_told(self._deploy(self._project))
                if not result.ok:
                    return output.FAILED
            if not detach:
                await self._unless_told(self._stay())
        except Told:
            await self._end()
        except (Rejected, NotFound, ApiFailure, NoDaemon):
            await self._end()
            raise
        return output.OK

    def _tell(self) -> None:
        if self._told.is_set():
            self._hasty.set()
        self._told.set()

    async def _unless_told(self, work: Coroutine[Any, Any, T]) -> T:
        """Does `work` unless it is told to end first. Raises Told then."""
        doing = asyncio.ensure_future(work)
        told = asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait([doing, told], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Told
            return doing.result()
        finally:
            doing.cancel()
            told.cancel()
            await asyncio.wait([doing, told])

    async def _deploy(self, project: Project) -> DeployResult:
        """Deploys and shows how it goes. A project that was not there before and fails is
        taken away again."""
        before = {service.project for service in (await self._client.status()).services}
        begun = await self._client.deploy(project, self._take_over)
        plan_output.tell_lacks(begun.lacks)
        result = await deploy_progress.follow(
            self._client, project.name, self._seconds, self._quiet, deploy_progress.monotonic
        )
        if self._quiet:
            output.print_json(result)
        if result.ok:
            await self._say_where()
            return result
        if not self._quiet:
            output.complain(f"{project.name} failed: {result.detail}")
        if self._daemon is not None:
            await self._end()
        elif project.name not in before:
            output.complain(f"taking {project.name} away again")
            await self._client.down(project.name)
        return result

    async def _say_where(self) -> None:
        status = await self._client.status()
        if not self._quiet:
            output.say(tables.headline(status))
            if unfiltered := tables.unfiltered(status):
                output.complain(unfiltered)

    async def _stay(self) -> None:
        """Until the daemon ends; over restarts of its control process."""
        if not self._quiet:
            output.say("Ctrl-C ends it" if self._daemon else "Ctrl-C leaves it running")
        while await self._answers():
            await self._show_events()
        output.complain("the daemon has ended")

    async def _show_events(self) -> None:
        """Until the control process ends."""
        try:
            async for event in self._client.follow_events(self._since):
                self._since = event.id
                if self._quiet:
                    output.print_json_line(event)
                else:
                    output.say(tables.event_line(event))
        except NoDaemon:
            return

    async def _answers(self) -> bool:
        """Whether the daemon answers, given time to come back unless it has ended."""
        end = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < end:
            try:
                await self._client.status()
            except NoDaemon:
                if self._daemon is not None and await self._daemon.ended(0.0):
                    return False
                await asyncio.sleep(0.1)
            else:
                return True
        return False

    async def _end(self) -> None:
        """Ends in order what we started: projects down, workers drained. A second Ctrl-C
        ends it in haste."""
        daemon = self._daemon
        if daemon is None:
            return
        output.complain("ending in order; Ctrl-C again ends it at once")
        in_order = asyncio.ensure_future(self._end_in_order(daemon))
        hasty = asyncio.ensure_future(self._hasty.wait())
        showing = asyncio.ensure_future(self._show_events())
        await asyncio.wait([in_order, hasty], return_when=asyncio.FIRST_COMPLETED)
        tasks = (in_order, hasty, showing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await end_at_once(daemon)

    async def _end_in_order(self, daemon: DaemonProcess) -> None:
        patience = END_SECONDS
        try:
            await self._client.shutdown(stop_replicas=True)
        except (NoDaemon, ApiFailure):
            patience = UNASKED_SECONDS  # it ended before it could answer, or cannot be asked
        await daemon.ended(patience)


async def end_at_once(daemon: DaemonProcess) -> None:
    """Ends a daemon by signals, ever harder ones, until it has ended."""
    for number, patience in (
        (signal.SIGTERM, 2.0),
        (signal.SIGTERM, 10.0),
        (signal.SIGKILL, 5.0),
    ):
        if await daemon.ended(0.0):
            return
        daemon.signal(number)
        await daemon.ended(patience)
