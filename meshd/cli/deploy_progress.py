"""Showing how a deployment goes on: one line a service, until it is done."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import msgspec
from rich.live import Live
from rich.text import Text

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import DeployResult, ServiceStatus
from meshd.cli import output
from meshd.model.release import Release

INTERVAL: Final = 0.2
SILENCE: Final = 20.0
"""Seconds that a daemon may not answer while its control process is replaced."""
LEAVING: Final = ("draining", "stopping", "gone", "failed")


class Lines:
    """What there is to say about each service; `now` is seconds since the start."""

    def __init__(self) -> None:
        self._ready_at: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def of(
        self, services: list[ServiceStatus], now: float, whole: bool = True
    ) -> list[tuple[str, str, bool]]:
        """(service, what it is at, whether it is there) of each service; `whole` with what changes
        from second to second."""
        return [(service.name, *self._one(service, now, whole)) for service in services]

    def changed(self, services: list[ServiceStatus], now: float) -> list[str]:
        """Plain lines for what has changed since the last call."""
        width = max((len(service.name) for service in services), default=0)
        lines = []
        for name, text, _ in self.of(services, now, whole=False):
            if self._said.get(name) != text:
                self._said[name] = text
                lines.append(f"{name.ljust(width)}  {now:5.1f} s  {text}")
        return lines

    def _one(self, service: ServiceStatus, now: float, whole: bool) -> tuple[str, bool]:
        coming = service.coming or service.revision
        new = [r for r in service.replicas if r.revision == coming]
        old = len(service.replicas) - len(new)
        ready = sum(replica.phase == "ready" for replica in new)
        back = service.stage and not service.coming
        which = "of the revision that failed" if back else "of the old revision"
        leaving = f", {old} {which}" if old else ""
        if ready >= service.wanted and not old:
            after = self._ready_at.setdefault(service.name, now)
            yet = f"; {service.stage}" if service.stage else ""
            return f"ready {ready}/{service.wanted} after {after:.1f} s{yet}", True
        self._ready_at.pop(service.name, None)
        reasons = [r.reason for r in new if r.reason and r.phase not in LEAVING]
        why = f" ({reasons[0]})" if reasons else ""
        phases = [r.phase for r in new if r.phase != "ready"]
        word = phases[0] if phases else "rolling" if service.stage else "waiting"
        at = f"; {service.stage}" if service.stage else ""
        if at and whole and service.trial:
            at += f" ({service.trial})"
        return f"{word} {ready}/{service.wanted} ready{leaving}{why}{at}", False


async def follow(
    client: Client,
    project: str,
    seconds: float,
    quiet: bool,
    clock: Callable[[], float],
    begun: Collection[Release] = (),
) -> DeployResult:
    """Shows the deployment until it is done, or for `seconds`; the result then says how far
    it came. With `quiet` nothing is shown. `clock` is monotonic. Where somebody else's release
    of a service comes after the one that was `begun`, what was asked for is not what will be:
    that is no success.

    A control process may end meanwhile; its successor goes on. Raises NoDaemon when none comes.
    """
    lines, start = Lines(), clock()
    answered = start
    live = Live(console=output.console(), refresh_per_second=8) if _drawn(quiet) else None
    if live:
        live.start()
    try:
        while True:
            try:
                result = await client.progress(project)
                status = await client.status()
            except NoDaemon:
                if clock() >= answered + SILENCE:
                    raise
                await asyncio.sleep(INTERVAL)
                continue
            now, answered = clock() - start, clock()
            services = [s for s in status.services if s.project == project]
            if live:
                live.update(_picture(lines, services, now))
            elif not quiet:
                for line in lines.changed(services, now):
                    output.say(line)
            if later := overtaking(begun, result.releases):
                return _overtaken(result, later)
            if result.done:
                return result
            if now >= seconds:
                return _too_late(project, seconds, lines.of(services, now), result)
            await asyncio.sleep(INTERVAL)
    finally:
        if live:
            live.stop()


def _drawn(quiet: bool) -> bool:
    return not quiet and output.on_terminal()


def _picture(lines: Lines, services: list[ServiceStatus], now: float) -> Text:
    width = max((len(service.name) for service in services), default=0)
    text = Text()
    for name, what, there in lines.of(services, now):
        mark, style = ("✓", "green") if there else ("·", "yellow")
        text.append(f" {mark} ", style=style)
        text.append(f"{name.ljust(width)}  {what}\n")
    text.append(f"   {now:.1f} s", style="dim")
    return text


def overtaking(begun: Collection[Release], newest: Collection[Release]) -> list[Release]:
    """Those of the `newest` releases that came after the one of their service that was `begun`."""
    numbers = {release.service: release.number for release in begun}
    return [each for each in newest if each.number > numbers.get(each.service, each.number)]


def _overtaken(result: DeployResult, later: Collection[Release]) -> DeployResult:
    names = ", ".join(f"{each.service} #{each.number} by {each.who}" for each in later)
    return msgspec.structs.replace(
        result,
        done=True,
        ok=False,
        detail=f"overtaken by another deployment, which goes on: {names}",
    )


def _too_late(
    project: str, seconds: float, lines: list[tuple[str, str, bool]], result: DeployResult
) -> DeployResult:
    waiting = [f"{name}: {what}" for name, what, there in lines if not there]
    detail = "\n".join(
        [f"not done within {output.seconds(seconds)} (--timeout)", *waiting, result.detail]
    )
    return DeployResult(project, done=True, ok=False, detail=detail.rstrip(), plan=result.plan)


def monotonic() -> float:
    """Seconds that only grow."""
    return time.monotonic()
