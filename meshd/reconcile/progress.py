"""The progress of a deployment and the state of a service, from desired and observed state. Pure.

`meshd.control.deploy.progress` and `meshd.control.status` call it to answer the API.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.replica_phase import ALIVE, ENDED, Phase

CRASH_LOOP_FAILURES: Final = 3
"""Quick failures in a row that count as a crash loop; a first deployment fails after as many."""


class DeploymentProgress(msgspec.Struct, frozen=True):
    """The progress of one service.

    - `settled`: whether nothing more will happen; `ok`: whether the deployment succeeded.
    - `text`: one line for people.
    """

    settled: bool
    ok: bool
    text: str


def deployment_progress(
    service: DesiredService,
    replicas: Sequence[Replica],
    failures: Sequence[ReplicaFailure],
    cause: str,
    waiting: str,
) -> DeploymentProgress:
    """Return the progress of one service.

    - `failures`: the failures of its revision.
    - `cause`: why its rollout ended; empty if it has not.
    - `waiting`: what it waits for; empty if it waits for nothing.
    """
    name = service.spec.name
    ready = [r for r in replicas if r.serves and _is_up_to_date(service, r)]
    alive = [r for r in replicas if r.phase in ALIVE and not r.warm]
    if service.keeps_previous:
        alive = [r for r in alive if r.revision == service.revision]
    completed = [r for r in replicas if r.phase is Phase.FAILED and r.exit_code == 0]
    complete = len(ready) == len(alive) and len(ready) + len(completed) >= service.desired
    # A failed replica is removed soon, and its last lines of output are kept then. Wait for them.
    failing = any(r.managed and (r.counted_as_failure or r.phase is Phase.FAILED) for r in replicas)
    has_evidence = not failing or bool(completed)
    rollout = service.rollout
    if (rollout.is_rolling_back or rollout.is_paused) and cause:
        how = "is paused" if rollout.is_paused else "was rolled back"
        stuck = rollout.is_paused and not rollout.previous
        return DeploymentProgress(
            settled=(complete or stuck) and has_evidence, ok=False, text=f"{name} {how}: {cause}"
        )
    recent = [failure for failure in failures if failure.at >= rollout.since]
    if rollout.is_rolling and not rollout.previous and recent:
        failed = len(recent) >= CRASH_LOOP_FAILURES or recent[-1].final
        if failed:
            text = f"{name}: {recent[-1].text}"
            return DeploymentProgress(settled=has_evidence, ok=False, text=text)
    if complete and rollout.is_done:
        return DeploymentProgress(settled=True, ok=True, text=f"{name}: {len(ready)} ready")
    text = f"{name}: {len(ready)} of {service.desired} ready"
    detail = waiting or (recent[-1].text if recent else "") or _first_unready(replicas)
    return DeploymentProgress(settled=False, ok=False, text=f"{text}; {detail}" if detail else text)


def phase_word(replica: Replica) -> str:
    """Return the phase of a replica for people; `unready` if it is up, but not ready for
    requests."""
    unready = replica.phase is Phase.READY and replica.unready
    return "unready" if unready else str(replica.phase)


def service_state(
    service: DesiredService, replicas: Sequence[Replica], waiting: str, slots: Mapping[int, float]
) -> str:
    """Return the state of a service as one word: `ok`, `rolling`, `paused`, `crash-loop`,
    `backoff`, `starting`, `waiting`, `degraded` or `idle`.

    - `waiting`: what it waits for; empty if it waits for nothing.
    - `slots`: when delayed starts are due (Unix time), by the number of failures before them.
    """
    rollout = service.rollout
    ready = sum(r.serves for r in replicas)
    worst = max([*slots, *(r.attempt for r in replicas if r.phase in ALIVE)], default=0)
    if ready >= service.desired:
        if rollout.is_unfinished:
            return rollout.state.word
        return "ok" if service.desired else "idle"
    if worst >= CRASH_LOOP_FAILURES:
        return "crash-loop"
    if slots:
        return "backoff"
    if rollout.is_unfinished and rollout.previous:
        return rollout.state.word
    if waiting:
        return "waiting"
    return "starting" if not ready else "degraded"


def _is_up_to_date(service: DesiredService, replica: Replica) -> bool:
    return service.adopted or replica.revision == service.revision


def _first_unready(replicas: Sequence[Replica]) -> str:
    """Return what the first replica that is not ready does; empty if all are ready."""
    for replica in replicas:
        if replica.phase not in ENDED and not replica.serves:
            shown = replica.probe and (replica.bad or replica.unready)
            probe = f" ({replica.probe})" if shown else ""
            return f"{replica.name} is {phase_word(replica)}{probe}"
    return ""
