"""What a release was asked, and what became of it, in lines."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import DeployResult
from meshd.cli import output
from meshd.model.release import Release, ReleaseOutcome

PATIENCE: Final = 2.5
ENDED_EARLY: Final = (ReleaseOutcome.ROLLED_BACK, ReleaseOutcome.PAUSED)
"""Seconds in which the workers' last reports of a release come in."""
HISTORY_COLUMNS: Final = (
    "release",
    "revision",
    "when",
    "who",
    "how",
    "changed",
    "outcome",
    "served",
)


async def whole(client: Client, result: DeployResult, since: float) -> list[Release]:
    """The releases of a deployment that began at `since` (Unix time), with all their counts:
    waits for the last of them where there is traffic."""
    found = _recent(result.releases, since)
    end = time.monotonic() + PATIENCE
    while any(_open(release) for release in found) and time.monotonic() < end:
        await asyncio.sleep(0.1)
        try:
            found = _recent((await client.progress(result.project)).releases, since)
        except NoDaemon:
            break
    return found


def _recent(releases: Sequence[Release], since: float) -> list[Release]:
    return [release for release in releases if release.at >= since]


def _open(release: Release) -> bool:
    tally = release.tally
    return bool(release.ended and tally and tally.requests and tally.until < release.ended)


def lines(release: Release) -> list[str]:
    """The report on one release; the first line tells the sum of it."""
    took = f" in {output.seconds(release.ended - release.at)}" if release.ended else ""
    first = f"{release.service} #{release.number} {release.outcome}{took}"
    tally = release.tally
    if tally is None or not (tally.requests or tally.parked):
        return [f"{first}: no requests"]
    found = [
        f"{first}: {tally.requests:,} requests, {tally.errors:,} answered with 5xx, "
        f"{tally.parked:,} parked"
    ]
    for revision, counts in sorted(tally.revisions.items()):
        which = "new" if revision == release.revision else "old"
        found.append(
            f"  {which} {revision[:12]}: {counts.served:,} served, {counts.failed:,} failed, "
            f"{counts.retried:,} failed and retried"
        )
    if tally.unknown:
        found.append(
            f"  no reports for {tally.unknown:.1f} worker-seconds: counted is what is known"
        )
    return found


def history_row(release: Release) -> list[str]:
    """One row a release."""
    tally = release.tally
    told = f"{tally.requests:,}, {tally.errors:,} 5xx" if tally else ""
    cause = f": {release.cause}" if release.outcome in ENDED_EARLY else ""
    return [
        f"{release.service} #{release.number}",
        release.revision[:12],
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(release.at)),
        release.who,
        release.how,
        release.changed,
        release.outcome + cause,
        told,
    ]
