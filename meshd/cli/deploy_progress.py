"""Show the progress of a deployment until it is done, one line per service.

Used by `up`, `deploy` and `rollout undo`. The control process may be replaced meanwhile: its
successor continues the deployment, and the display continues with it.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec
from rich.console import Group
from rich.live import Live
from rich.text import Text

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import DeployResult, ServiceStatus
from meshd.cli import output
from meshd.cli.bars import Bar, draw_bars
from meshd.cli.follow import RECONNECT_SECONDS
from meshd.model.release import Release

POLL_SECONDS: Final = 0.2
"""Seconds between two requests for the progress."""
REFRESH_PER_SECOND: Final = 8
"""Redraws per second of the live display: often enough to look smooth."""
ENDING_PHASES: Final = ("draining", "stopping", "gone", "failed", "completed")
"""Phases whose reason does not explain why a service is not ready yet."""


@dataclass(frozen=True, slots=True)
class ServiceProgress:
    """Progress of one service; `complete`: its new replicas are ready and the old ones gone.
    `done` of `total` replicas are where they should be; those to be replaced are not."""

    service: str
    text: str
    complete: bool
    done: int = 0
    total: int = 0


class ProgressReport:
    """Describes the progress of each service; remembers what `changes` has reported."""

    def __init__(self) -> None:
        self._ready_at: dict[str, float] = {}
        self._reported: dict[str, str] = {}

    def describe(
        self, services: list[ServiceStatus], now: float, detailed: bool = True
    ) -> list[ServiceProgress]:
        """Return the progress of each service; `now` is seconds since the start. `detailed`
        includes figures that change every second."""
        return [self._describe(service, now, detailed) for service in services]

    def changes(self, services: list[ServiceStatus], now: float) -> list[str]:
        """Return a line for each service whose progress has changed since the last call."""
        width = max((len(service.name) for service in services), default=0)
        lines = []
        for progress in self.describe(services, now, detailed=False):
            if self._reported.get(progress.service) != progress.text:
                self._reported[progress.service] = progress.text
                lines.append(f"{progress.service.ljust(width)}  {now:5.1f} s  {progress.text}")
        return lines

    def _describe(self, service: ServiceStatus, now: float, detailed: bool) -> ServiceProgress:
        revision = service.new_revision or service.revision
        new = [replica for replica in service.replicas if replica.revision == revision]
        old = len(service.replicas) - len(new)
        ready = sum(replica.phase == "ready" for replica in new)
        completed = sum(replica.phase == "completed" for replica in new)
        rolling_back = service.stage and not service.new_revision
        old_text = "of the failed revision" if rolling_back else "of the old revision"
        remaining = f", {old} {old_text}" if old else ""
        stage = f"; {service.stage}" if service.stage else ""
        if ready + completed >= service.desired and not old:
            after = self._ready_at.setdefault(service.name, now)
            word = "completed" if completed and not ready else "ready"
            count = f"{ready + completed}/{service.desired}"
            text = f"{word} {count} after {after:.1f} s{stage}"
            return ServiceProgress(service.name, text, complete=True, done=1, total=1)
        self._ready_at.pop(service.name, None)
        reasons = [r.reason for r in new if r.reason and r.phase not in ENDING_PHASES]
        if not reasons and not new and service.waiting:
            reasons = [service.waiting]
        reason = f" ({reasons[0]})" if reasons else ""
        phases = [replica.phase for replica in new if replica.phase != "ready"]
        word = phases[0] if phases else "rolling" if service.stage else "waiting"
        if stage and detailed and service.analysis:
            stage += f" ({service.analysis})"
        text = f"{word} {ready}/{service.desired} ready{remaining}{reason}{stage}"
        return ServiceProgress(
            service.name,
            text,
            complete=False,
            done=ready + completed,
            total=max(service.desired, len(new)) + old,
        )


async def follow(
    client: Client,
    project: str,
    seconds: float,
    quiet: bool,
    clock: Callable[[], float],
    begun: Collection[Release] = (),
) -> DeployResult:
    """Show the deployment until it is done, for at most `seconds`, and return its result.

    With `quiet` nothing is shown. `clock` is monotonic. If another release of a service follows
    the one in `begun`, the result is a failure: something else than requested will run.

    Raises NoDaemon if the control process ends and no successor answers.
    """
    report, start = ProgressReport(), clock()
    answered_at = start
    live = _live_display() if not quiet and output.on_terminal() else None
    if live:
        live.start()
    try:
        while True:
            try:
                result = await client.progress(project)
                status = await client.status()
            except NoDaemon:
                if clock() >= answered_at + RECONNECT_SECONDS:
                    raise
                await asyncio.sleep(POLL_SECONDS)
                continue
            now, answered_at = clock() - start, clock()
            services = [s for s in status.services if s.project == project]
            if live:
                live.update(_render(report, services, now))
            elif not quiet:
                for line in report.changes(services, now):
                    output.print_line(line)
            if later := later_releases(begun, result.releases):
                return _overtaken(result, later)
            if result.done:
                return result
            if now >= seconds:
                return _timed_out(project, seconds, report.describe(services, now), result)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        if live:
            live.stop()


def _live_display() -> Live:
    return Live(console=output.console(), refresh_per_second=REFRESH_PER_SECOND)


def _render(report: ProgressReport, services: list[ServiceStatus], now: float) -> Group:
    bars = [
        Bar(each.service, each.done, each.total, each.text, each.complete)
        for each in report.describe(services, now)
    ]
    return Group(draw_bars(bars), Text(f"   {now:.1f} s", style="dim"))


def later_releases(begun: Collection[Release], newest: Collection[Release]) -> list[Release]:
    """Return those of the `newest` releases that follow the one in `begun` of their service."""
    numbers = {release.service: release.number for release in begun}
    return [each for each in newest if each.number > numbers.get(each.service, each.number)]


def _overtaken(result: DeployResult, later: Collection[Release]) -> DeployResult:
    names = ", ".join(f"{each.service} #{each.number} by {each.who}" for each in later)
    return msgspec.structs.replace(
        result,
        done=True,
        ok=False,
        detail=f"overtaken by another deployment, which continues: {names}",
    )


def _timed_out(
    project: str, seconds: float, services: list[ServiceProgress], result: DeployResult
) -> DeployResult:
    missing = [f"{each.service}: {each.text}" for each in services if not each.complete]
    detail = "\n".join(
        [f"not done within {output.format_seconds(seconds)} (--timeout)", *missing, result.detail]
    )
    return DeployResult(project, done=True, ok=False, detail=detail.rstrip(), plan=result.plan)


def monotonic() -> float:
    """Return the monotonic clock, in seconds."""
    return time.monotonic()
