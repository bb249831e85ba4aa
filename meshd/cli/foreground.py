"""`meshd up` after the daemon answers: deploy, show events, and end the daemon in order.

Used by `meshd.cli.commands.up` alone. `deploy_progress` shows the deployment.
"""

import asyncio
import contextlib
import os
import signal
from typing import Final

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import DeployResult, Status
from meshd.cli import (
    daemon_process,
    deploy_progress,
    image_progress,
    output,
    plan_output,
    tables,
)
from meshd.cli.daemon_process import END_SECONDS, START_SECONDS, DaemonOptions, DaemonProcess
from meshd.cli.stop_signals import StopRequested, StopSignals
from meshd.model.errors import NotFound, Rejected
from meshd.runtime.lease import DURATION
from meshd.spec.model import Project

NO_ANSWER_SECONDS: Final = 3.0
"""Seconds to wait for the end of a daemon that could not answer the request to shut down."""
DECISION_SECONDS: Final = 2 * DURATION
"""Seconds after which a daemon that does not lead stands by: the lease of one that was killed has
expired by then."""
STANDBY_POLL: Final = 0.2
"""Seconds between two looks at whether the daemon leads by now."""
RECONNECT_POLL: Final = 0.1
"""Seconds between two attempts to reach a control process that is being replaced."""
LINGER_SECONDS: Final = 1.0
"""Seconds that `meshd up` stays after its daemon, as the first process of a container."""
SIGNAL_STEPS: Final = (
    (signal.SIGTERM, 2.0),
    (signal.SIGTERM, 10.0),
    (signal.SIGKILL, 5.0),
)
"""Signals that end a daemon at once, and seconds to wait after each. The supervisor drains at the
first SIGTERM and stops draining at the second."""


class ForegroundRun:
    """One run of `meshd up`.

    - `signals`: what asks it to stop.
    - `daemon`: the one that this command started; None if one was running already: the command ends
      only a daemon that it started.
    - `lease`: the name of the lease that the daemon shares with others; empty for none. With one,
      the services belong to all of them: they run on when this daemon ends, and another one leads.
    """

    def __init__(
        self,
        signals: StopSignals,
        client: Client,
        daemon: DaemonProcess | None,
        project: Project | None,
        seconds: float,
        quiet: bool,
        take_over: bool = False,
        lease: str = "",
    ) -> None:
        self._signals = signals
        self._lease = lease
        self._take_over = take_over
        self._client = client
        self._daemon = daemon
        self._project = project
        self._seconds = seconds
        self._quiet = quiet
        self._last_event = 0
        self._stood_by = False

    async def run(self, detach: bool) -> int:
        """Deploy, then show events unless `detach` is set. Return the exit code."""
        self._signals.handle()
        until_stopped = self._signals.until_stopped
        try:
            if await until_stopped(self._stand_by(detach)):
                return output.OK
            _, self._last_event = await self._client.last_events(0, lambda _: False)
            if self._project is not None and not await self._is_deployed(self._project):
                result = await until_stopped(self._deploy(self._project))
                if not result.ok:
                    return output.FAILED
            if not detach:
                await until_stopped(self._show_until_end())
        except StopRequested:
            await self._end()
        except (Rejected, NotFound, ApiFailure, NoDaemon):
            await self._end()
            raise
        except OSError:  # the terminal was closed, or what reads the output has ended
            if not detach:
                await self._end()
            raise
        return output.OK

    async def _stand_by(self, detach: bool) -> bool:
        """Wait until the daemon leads, if another one does. Return whether there is nothing to do:
        with `detach` the command waits only as long as it takes to find out. Raises NoDaemon."""
        printed, since = "", deploy_progress.monotonic()
        answered = since
        while True:
            now = deploy_progress.monotonic()
            try:
                status = await self._client.status()
            except NoDaemon:  # for a moment, between standing by and leading
                if now > answered + START_SECONDS:
                    raise
            else:
                answered = now
                if not status.standby:
                    return False
                self._stood_by |= bool(status.leader)
                decided = now > since + DECISION_SECONDS
                if decided and status.standby != printed:
                    output.print_error(f"{status.standby}; this meshd waits for the lease")
                    printed = status.standby
                if decided and detach:
                    return True
            await asyncio.sleep(STANDBY_POLL)

    async def _is_deployed(self, project: Project) -> bool:
        """Whether this daemon took the project over from another one. It was deployed there, maybe
        in a later version than the file of this command has."""
        if not self._stood_by:
            return False
        stored = {each.name for each in (await self._client.status()).projects}
        if project.name not in stored:
            return False
        output.print_error(
            f"{project.name} stays as the meshd that led before has deployed it; `meshd deploy` "
            "deploys the file of this command"
        )
        return True

    async def _deploy(self, project: Project) -> DeployResult:
        """Deploy and show the progress. If a project fails that did not exist before, take it
        down."""
        before = {service.project for service in (await self._client.status()).services}
        accepted = await image_progress.show_while(
            self._client, self._client.deploy(project, self._take_over), self._quiet
        )
        plan_output.warn_unsupported(accepted.unsupported)
        await plan_output.warn_unused_volumes(self._client, project.name)
        result = await deploy_progress.follow(
            self._client, project.name, self._seconds, self._quiet, deploy_progress.monotonic
        )
        if self._quiet:
            output.print_json(result)
        if result.ok:
            await self._print_daemon_line(project)
            return result
        if not self._quiet:
            output.print_error(f"{project.name} failed: {result.detail}")
        if project.name not in before and (self._daemon is None or self._lease):
            output.print_error(f"taking {project.name} down again")
            await self._client.down(project.name)
        await self._end()
        return result

    async def _print_daemon_line(self, project: Project) -> None:
        """Print what each service of the project is, and a line about the daemon."""
        status = await self._client.status()
        if self._quiet:
            return
        services = [each for each in status.services if each.project == project.name]
        for line in tables.kind_lines(services):
            output.print_line(line)
        output.print_line(tables.daemon_line(status))
        for line in tables.certificate_lines(await self._client.certificates()):
            output.print_error(line)
        for warning in (
            tables.filter_warning(status),
            tables.addresses_warning(status),
            tables.enforcement_warning(status),
        ):
            if warning:
                output.print_error(warning)

    async def _show_until_end(self) -> None:
        """Show events until the daemon ends, across restarts of its control process."""
        if not self._quiet:
            output.print_line(self._describe_end())
        standby = ""
        while (status := await self._reconnect()) is not None:
            if not status.standby:
                await self._show_events()
            elif status.standby != standby:
                output.print_error(status.standby)
            standby = status.standby
            await asyncio.sleep(STANDBY_POLL if standby else 0.0)
        output.print_error("the daemon has ended")
        if os.getpid() == 1:
            # A container ends with its first process: the command there that has ended the daemon,
            # by `docker exec`, would be killed before it could say so.
            await asyncio.sleep(LINGER_SECONDS)

    def _describe_end(self) -> str:
        """Return what Ctrl-C does."""
        if self._daemon is None:
            return "press Ctrl-C to leave; the daemon keeps running"
        if self._lease:
            return (
                f"press Ctrl-C to end this meshd; another one of lease {self._lease} leads then, "
                "and the services keep running"
            )
        return "press Ctrl-C to stop everything"

    async def _show_events(self) -> None:
        """Show events until the control process ends."""
        try:
            async for event in self._client.follow_events(self._last_event):
                self._last_event = event.id
                if self._quiet:
                    output.print_json_line(event)
                else:
                    output.print_line(tables.event_line(event))
        except NoDaemon:
            return
        except Rejected:  # it lost the lease
            await asyncio.sleep(RECONNECT_POLL)

    async def _reconnect(self) -> Status | None:
        """Return the daemon's status, after giving its control process time to be replaced; None if
        it does not answer."""
        end = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < end:
            try:
                return await self._client.status()
            except NoDaemon:
                if self._daemon is not None and await self._daemon.has_ended(0.0):
                    return None
                await asyncio.sleep(RECONNECT_POLL)
        return None

    async def _end(self) -> None:
        """End the daemon in order if this command started it: take projects down, unless it shares
        them, and drain the workers. A second Ctrl-C ends it at once."""
        daemon = self._daemon
        if daemon is None:
            return
        _say("stopping in order; press Ctrl-C again to stop at once")
        in_order = asyncio.ensure_future(self._end_in_order(daemon))
        at_once = asyncio.ensure_future(self._signals.again.wait())
        events = asyncio.ensure_future(self._show_events())
        await asyncio.wait([in_order, at_once], return_when=asyncio.FIRST_COMPLETED)
        tasks = (in_order, at_once, events)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await end_by_signal(daemon)

    async def _end_in_order(self, daemon: DaemonProcess) -> None:
        timeout = END_SECONDS
        try:
            await self._client.shutdown(stop_replicas=not self._lease)
        except (NoDaemon, ApiFailure):
            timeout = NO_ANSWER_SECONDS  # it ended before it could answer, or cannot be reached
        await daemon.has_ended(timeout)


def _say(text: str) -> None:
    """Print to standard error, if that still exists: the daemon ends in any case."""
    with contextlib.suppress(OSError):
        output.print_error(text)


async def start_daemon(options: DaemonOptions, signals: StopSignals) -> DaemonProcess:
    """Start a daemon and wait until it answers. Raises DaemonStartError, and StopRequested if a
    signal arrives first; the daemon has ended then."""
    signals.handle()  # before the start: a signal that ended this command would leave the daemon
    daemon = daemon_process.spawn(options)
    try:
        await signals.until_stopped(daemon_process.wait_ready(daemon))
    except StopRequested:
        _say("stopping the daemon, which was not ready yet")
        await end_by_signal(daemon)
        raise
    except BaseException:
        await end_by_signal(daemon)
        raise
    return daemon


async def end_by_signal(daemon: DaemonProcess) -> None:
    """End a daemon by signals, see `SIGNAL_STEPS`; no effect if it has ended."""
    for number, seconds in SIGNAL_STEPS:
        if await daemon.has_ended(0.0):
            return
        daemon.signal(number)
        await daemon.has_ended(seconds)
