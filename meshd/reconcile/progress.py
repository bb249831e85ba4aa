"""Where a deployment stands, read from what is wanted and what is seen. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.replica_phase import ALIVE, ENDED, Phase

CRASH_LOOP_FAILURES: Final = 3
"""Quick failures in a row that count as a crash loop; a first deployment fails after as many."""


class DeploymentProgress(msgspec.Struct, frozen=True):
    """One service: `settled` when nothing more is to be expected, and whether it went well."""

    settled: bool
    ok: bool
    text: str


def standing(
    service: DesiredService,
    replicas: Sequence[Replica],
    failures: Sequence[ReplicaFailure],
    cause: str,
    waiting: str,
) -> DeploymentProgress:
    """How far one service is. `cause` is why its rollout ended, `waiting` what it waits for."""
    name = service.spec.name
    right = [r for r in replicas if r.serves and _right(service, r)]
    alive = [r for r in replicas if r.phase in ALIVE and not r.reserve]
    if service.keeps_previous:
        alive = [r for r in alive if r.revision == service.revision]
    completed = [r for r in replicas if r.phase is Phase.FAILED and r.exit_code == 0]
    there = len(right) == len(alive) and len(right) + len(completed) >= service.count
    # What failed is removed soon, and its last words are kept then: they are waited for.
    failing = any(r.managed and (r.blamed or r.phase is Phase.FAILED) for r in replicas)
    told = not failing or bool(completed)
    rollout = service.rollout
    if (rollout.is_rolling_back or rollout.is_paused) and cause:
        how = "is paused" if rollout.is_paused else "was rolled back"
        stuck = rollout.is_paused and not rollout.previous
        return DeploymentProgress(
            settled=(there or stuck) and told, ok=False, text=f"{name} {how}: {cause}"
        )
    held = [failure for failure in failures if failure.at >= rollout.since]
    if rollout.is_rolling and not rollout.previous and held:
        enough = len(held) >= CRASH_LOOP_FAILURES or held[-1].final
        if enough:
            return DeploymentProgress(settled=told, ok=False, text=f"{name}: {held[-1].text}")
    if there and rollout.is_done:
        return DeploymentProgress(settled=True, ok=True, text=f"{name}: {len(right)} ready")
    text = f"{name}: {len(right)} of {service.count} ready"
    detail = waiting or (held[-1].text if held else "") or _slowest(replicas)
    return DeploymentProgress(settled=False, ok=False, text=f"{text}; {detail}" if detail else text)


def _right(service: DesiredService, replica: Replica) -> bool:
    return service.adopted or replica.revision == service.revision


def word(replica: Replica) -> str:
    """Where a replica stands, in one word: its phase, or `unready` where it wants no requests."""
    unready = replica.phase is Phase.READY and replica.unready
    return "unready" if unready else str(replica.phase)


def _slowest(replicas: Sequence[Replica]) -> str:
    for replica in replicas:
        if replica.phase not in ENDED and not replica.serves:
            shown = replica.probe and (replica.bad or replica.unready)
            probe = f" ({replica.probe})" if shown else ""
            return f"{replica.name} is {word(replica)}{probe}"
    return ""


def state_of(
    service: DesiredService, replicas: Sequence[Replica], waiting: str, slots: Mapping[int, float]
) -> str:
    """One word for a service: `ok`, `rolling`, `paused`, `crash-loop`, `backoff`, `starting`,
    `waiting`, `degraded` or `idle`. `slots` maps attempts to when the next start is due."""
    rollout = service.rollout
    ready = sum(r.serves for r in replicas)
    worst = max([*slots, *(r.attempt for r in replicas if r.phase in ALIVE)], default=0)
    if ready >= service.count:
        if rollout.is_unfinished:
            return rollout.state.word
        return "ok" if service.count else "idle"
    if worst >= CRASH_LOOP_FAILURES:
        return "crash-loop"
    if slots:
        return "backoff"
    if rollout.is_unfinished and rollout.previous:
        return rollout.state.word
    if waiting:
        return "waiting"
    return "starting" if not ready else "degraded"
