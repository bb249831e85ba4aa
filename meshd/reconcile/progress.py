"""The progress of a deployment and the state of a service, from desired and observed state. Pure.

`meshd.control.deploy.progress` and `meshd.control.status` call it to answer the API.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.replica_phase import ALIVE, ENDED, Phase
from meshd.reconcile.observe.observe import describe_exit
from meshd.reconcile.restart_policy import has_completed, has_failed

CRASH_LOOP_FAILURES: Final = 3
"""Quick failures in a row that count as a crash loop; a first deployment fails after as many."""


class DeploymentProgress(msgspec.Struct, frozen=True):
    """The progress of one service.

    - `settled`: whether nothing more will happen; `ok`: whether the deployment succeeded.
    - `text`: one line for people.
    - `decisive`: whether its failure ends the deployment although other services are not settled.
    """

    settled: bool
    ok: bool
    text: str
    decisive: bool = False


def deployment_progress(
    service: DesiredService,
    replicas: Sequence[Replica],
    failures: Sequence[ReplicaFailure],
    cause: str,
    waiting: str,
    blocked: str = "",
    outputs_kept: Collection[str] = (),
) -> DeploymentProgress:
    """Return the progress of one service.

    - `failures`: the failures of its revision.
    - `cause`: why its rollout ended; empty if it has not.
    - `waiting`: what it waits for; empty if it waits for nothing.
    - `blocked`: why it cannot start: a dependency failed; empty if it can.
    - `outputs_kept`: failed replicas whose last lines of output are kept.
    """
    name = service.spec.name
    ready = [r for r in replicas if r.serves and _is_up_to_date(service, r)]
    if service.spec.runs_to_completion:
        ready = []
    alive = [r for r in replicas if r.phase in ALIVE and not r.warm]
    if service.keeps_previous:
        alive = [r for r in alive if r.revision == service.revision]
    completed = [r for r in replicas if has_completed(service, r)]
    failed = [r for r in replicas if has_failed(service, r)]
    complete = len(ready) == len(alive) and len(ready) + len(completed) >= service.desired
    # The last lines of output of a failed replica are kept soon, and it is removed if it does not
    # stay. Wait for that.
    explained = [r for r in failed if r.name in outputs_kept]
    has_evidence = not any(
        r.managed and (r.counted_as_failure or r.phase is Phase.FAILED) and r not in explained
        for r in replicas
    )
    rollout = service.rollout
    if (rollout.is_rolling_back or rollout.is_paused) and cause:
        how = "is paused" if rollout.is_paused else "was rolled back"
        stuck = rollout.is_paused and not rollout.previous
        return DeploymentProgress(
            settled=(complete or stuck) and has_evidence, ok=False, text=f"{name} {how}: {cause}"
        )
    if failed and not rollout.is_rolling_back:
        end = next((f.text for f in reversed(failures) if f.replica == failed[-1].name), "")
        text = f"{name} failed: {end or describe_exit(failed[-1].exit_code)}"
        return DeploymentProgress(settled=has_evidence, ok=False, text=text, decisive=True)
    if blocked:
        return DeploymentProgress(settled=True, ok=False, text=f"{name}: {blocked}")
    recent = [failure for failure in failures if failure.at >= rollout.since]
    hopeless = recent and (len(recent) >= CRASH_LOOP_FAILURES or recent[-1].final)
    if rollout.is_rolling and not rollout.previous and hopeless:
        text = f"{name}: {recent[-1].text}"
        return DeploymentProgress(settled=has_evidence, ok=False, text=text, decisive=True)
    if complete and rollout.is_done:
        text = f"{len(completed)} completed" if completed else f"{len(ready)} ready"
        return DeploymentProgress(settled=True, ok=True, text=f"{name}: {text}")
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
    `backoff`, `starting`, `waiting`, `degraded`, `idle`, `completed` or `failed`.

    - `waiting`: what it waits for; empty if it waits for nothing.
    - `slots`: when delayed starts are due (Unix time), by the number of failures before them.
    """
    rollout = service.rollout
    ready = sum(r.serves for r in replicas)
    worst = max([*slots, *(r.attempt for r in replicas if r.phase in ALIVE)], default=0)
    completed = sum(has_completed(service, r) for r in replicas)
    if ready + completed >= service.desired:
        if rollout.is_unfinished:
            return rollout.state.word
        if completed and not ready:
            return "completed"
        return "ok" if service.desired else "idle"
    if any(has_failed(service, r) for r in replicas):
        return "failed"
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
