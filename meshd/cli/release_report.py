"""Describe a release: its outcome, and how its requests ended. Used by `deploy` and `rollout`."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import DeployResult
from meshd.cli import output
from meshd.model.release import Release, ReleaseOutcome

REPORT_SECONDS: Final = 2.5
"""Seconds to wait for the last reports of the workers: they report every second."""
POLL_SECONDS: Final = 0.1
"""Seconds between two requests for the counts."""
STOPPED_EARLY: Final = (ReleaseOutcome.ROLLED_BACK, ReleaseOutcome.PAUSED)
"""Outcomes that need the cause with them."""
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


async def fetch_complete(client: Client, result: DeployResult, since: float) -> list[Release]:
    """Return the releases of a deployment that began at `since` (Unix time). If they had traffic,
    wait until their counts are complete."""
    releases = _begun_since(result.releases, since)
    end = time.monotonic() + REPORT_SECONDS
    while any(_is_incomplete(release) for release in releases) and time.monotonic() < end:
        await asyncio.sleep(POLL_SECONDS)
        try:
            releases = _begun_since((await client.progress(result.project)).releases, since)
        except NoDaemon:
            break
    return releases


def _begun_since(releases: Sequence[Release], since: float) -> list[Release]:
    return [release for release in releases if release.at >= since]


def _is_incomplete(release: Release) -> bool:
    counts = release.counts
    return bool(release.ended and counts and counts.requests and counts.until < release.ended)


def report_lines(release: Release) -> list[str]:
    """Return the report on one release: a summary, then one line per revision."""
    duration = f" in {output.format_seconds(release.ended - release.at)}" if release.ended else ""
    summary = f"{release.service} #{release.number} {release.outcome}{duration}"
    counts = release.counts
    if counts is None or not (counts.requests or counts.parked):
        return [f"{summary}: no requests"]
    lines = [
        f"{summary}: {counts.requests:,} requests, {counts.errors:,} answered with 5xx, "
        f"{counts.parked:,} parked"
    ]
    for revision, per_revision in sorted(counts.revisions.items()):
        which = "new" if revision == release.revision else "old"
        lines.append(
            f"  {which} {revision[:12]}: {per_revision.served:,} served, "
            f"{per_revision.failed:,} failed, {per_revision.retried:,} failed and retried"
        )
    if counts.unknown:
        lines.append(f"  incomplete: reports are missing for {counts.unknown:.1f} worker-seconds")
    return lines


def history_row(release: Release) -> list[str]:
    """Return the row of a release; the columns are `HISTORY_COLUMNS`."""
    counts = release.counts
    served = f"{counts.requests:,}, {counts.errors:,} 5xx" if counts else ""
    cause = f": {release.cause}" if release.outcome in STOPPED_EARLY else ""
    return [
        f"{release.service} #{release.number}",
        release.revision[:12],
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(release.at)),
        release.who,
        release.how,
        release.changed,
        release.outcome + cause,
        served,
    ]
