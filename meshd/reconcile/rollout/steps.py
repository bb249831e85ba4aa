"""One step from an old revision to a new one, the end of a stage, and the end of a rollout. Pure.

`meshd.reconcile.plan` asks for them in every pass. A rollout has no script that could be
interrupted: each pass counts the replicas of each revision and takes the next step that is safe.
Words and defaults are those of Compose's `deploy.update_config`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult, CanaryDecision
from meshd.model.desired import DesiredService
from meshd.model.operation import AdvanceRollout, FinishRollout
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.rollout import RolloutState
from meshd.reconcile.rollout.stages import (
    GROWING,
    current_stage,
    describe_next_stage,
    has_switched,
    stage_end_reason,
    stage_limits,
)

MIN_EXTERNAL_FAILURES: Final = 3
"""Failures from which even those with an external cause count against a revision: one replica may
be killed by accident, three are not."""


class RolloutStep(msgspec.Struct, frozen=True):
    """Numbers of new replicas to start and of ready old replicas to drain now."""

    start: int
    drain: int


def next_step(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    ended: int,
    leaving: int,
    now: float,
) -> RolloutStep:
    """Return the next step from `old` to `new` (live replicas); `ended` new ones are not started
    again, and `leaving` others still run.

    At most `surge` replicas run above the desired number, and at most `unavailable` are missing.
    In a stage, the new revision gets no more replicas than the stage says, and the old replicas
    stay.
    """
    desired, allowed, stage = service.desired, stage_limits(service), current_stage(service)
    surge = allowed.surge
    new_ready, count = sum(r.serves for r in new) + ended, len(new) + ended
    ready = new_ready + sum(r.serves for r in old)
    target, keep = desired, 0
    if stage is not None:
        target = min(stage.replicas, desired)
        fixed = service.spec.mesh.rollout.max_surge or service.max_containers is not None
        if stage.share != GROWING and not fixed:
            surge = max(surge, target)
        keep = max(0, desired + surge - target)
    # Without a surge a replica that is still leaving takes up the place of its successor.
    room = desired + surge - count - len(old) - (0 if surge else leaving)
    if surge and stage is None:
        # One step at a time: new replicas that are not ready yet use up the step.
        room = min(room, max(1, surge + allowed.unavailable) - (count - new_ready))
    if is_delayed(service, new, now):
        room = 0
    start = min(target - count, room)
    if stage is not None:
        # Old replicas that ended are not started again: new ones replace them.
        start = max(start, desired - allowed.unavailable - count - len(old) - leaving)
    drain = min(ready - (desired - allowed.unavailable), len(old) - keep)
    return RolloutStep(start=max(0, start), drain=max(0, drain))


def is_delayed(service: DesiredService, new: Sequence[Replica], now: float) -> bool:
    """Whether the delay between two steps has not passed yet."""
    delay = service.spec.update.delay
    return bool(delay) and _last_ready(new) + delay > now


def advance_stage(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    analysis: AnalysisResult | None,
    now: float,
) -> AdvanceRollout | None:
    """Return the operation that ends the current stage; None if it continues."""
    stage = current_stage(service)
    if stage is None or not service.rollout.is_rolling or not old:
        return None
    cause = stage_end_reason(service, stage, new, old, analysis, now)
    if cause is None:
        return None
    return AdvanceRollout(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        stage=service.rollout.stage + 1,
        next_stage=describe_next_stage(service),
        cause=cause,
    )


def finish_rollout(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    failures: Sequence[ReplicaFailure],
    now: float,
    analysis: AnalysisResult | None = None,
    completed: int = 0,
) -> FinishRollout | None:
    """Return the operation that ends the rollout; None if it continues.

    It fails if a previous revision exists, and the analysis found the new one worse or more
    replicas failed than `max_failure_ratio` allows. It is done once all replicas are ready, no
    replica of an old revision is left (except those that blue/green keeps), and the last one was
    monitored for `monitor` seconds. `completed` new replicas did their work and ended, which is
    as good as ready.
    """
    rollout, update = service.rollout, service.spec.update
    if not rollout.is_rolling:
        return None
    counted = [failure for failure in failures if failure.at >= rollout.since]
    if len(counted) < MIN_EXTERNAL_FAILURES:
        counted = [failure for failure in counted if not failure.external]
    too_many = len(counted) > update.max_failure_ratio * max(1, service.desired)
    worse = analysis is not None and analysis.decision is CanaryDecision.FAIL
    if (too_many or worse) and rollout.previous and update.failure_action != "continue":
        halts = update.failure_action == "pause"
        state = RolloutState.HALTED if halts else RolloutState.ROLLED_BACK
        cause = analysis.reason if analysis is not None and not too_many else counted[-1].text
        return _finish(service, state, cause)
    serving = 0 if service.spec.runs_to_completion else sum(r.serves for r in new)
    ready = serving + completed
    if current_stage(service) is not None and old:
        return None
    count = f"{ready} of {service.desired} {'completed' if completed else 'ready'}"
    total = len(new) + completed
    if has_switched(service) and ready == total == service.desired:
        return _finish(service, RolloutState.DONE, f"{count}, switched over")
    if old or ready < service.desired or total != service.desired:
        return None
    if rollout.previous and _last_ready(new) + update.monitor > now:
        return None
    return _finish(service, RolloutState.DONE, f"{count}, no replica of another revision")


def fail_rollout(service: DesiredService, cause: str) -> FinishRollout:
    """Return the operation that ends a failed rollout: roll back if there is a previous revision
    and the failure action is not `pause`, else halt."""
    rolls_back = service.rollout.previous and service.spec.update.failure_action != "pause"
    state = RolloutState.ROLLED_BACK if rolls_back else RolloutState.HALTED
    return _finish(service, state, cause)


def _finish(service: DesiredService, state: RolloutState, cause: str) -> FinishRollout:
    return FinishRollout(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        outcome=state,
        cause=cause,
    )


def _last_ready(replicas: Sequence[Replica]) -> float:
    """When the last of the replicas became ready (Unix time)."""
    return max((r.ready_since for r in replicas), default=0.0)
