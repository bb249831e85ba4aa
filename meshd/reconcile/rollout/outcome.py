"""The rollout's part of a service's plan: its hooks, the end of its stage, its end. Pure.

`meshd.reconcile.plan.service` asks for it in every pass. `steps` decides by replicas and traffic,
and the hooks can delay or change that decision.
"""

from collections.abc import Sequence

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.job import HookState
from meshd.model.operation import FinishRollout, Operation, RunHook
from meshd.model.replica import Replica
from meshd.model.rollout import RolloutState
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.rollout import hooks, steps
from meshd.reconcile.rollout.canary_analysis import NOT_STARTED


class RolloutOutcome(msgspec.Struct, frozen=True):
    """What the rollout itself does in this pass.

    - `waiting_for`: the hook that it waits for; empty: none.
    - `halts`: whether the rest of the service's plan is skipped in this pass.
    """

    operations: tuple[Operation, ...] = ()
    waiting_for: str = ""
    halts: bool = False


def rollout_outcome(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    completed: int,
    observed: Observed,
    blocker: str,
    now: float,
) -> RolloutOutcome:
    """Return the rollout's operations: nothing before its first hook succeeded, then the end of
    the rollout if it ends, else the end of its stage.

    - `completed`: new replicas that ended with code 0.
    - `blocker`: the dependency that the first hook waits for; empty: none.
    """
    operations: list[Operation] = []
    for hook in (*hooks.pre_start(service), hooks.before(service)):
        first, ordered = _run(hook, observed)
        if first is None or first.ok:
            continue
        if ordered and blocker:
            return RolloutOutcome((), blocker, halts=True)
        if first.is_over and service.rollout.is_rolling:
            ordered.append(steps.fail_rollout(service, first.text))
        waiting_for = "" if first.is_over else first.text
        return RolloutOutcome(tuple(ordered), waiting_for, halts=True)
    failures = observed.failures.get((service.key, service.revision), ())
    analyses = observed.analyses
    analysis = None if analyses is None else analyses.get(service.key, NOT_STARTED)
    waiting_for = ""
    end = steps.finish_rollout(service, new, old, failures, now, analysis, completed)
    if end is not None and end.outcome is RolloutState.DONE:
        last, ordered = _run(hooks.after(service), observed)
        operations += ordered
        if last is not None and not last.is_over:
            waiting_for, end = last.text, None
        elif last is not None and not last.ok:
            end = _end_after_failed_hook(service, end, last)
    if end is not None:
        operations.append(end)
        if end.outcome is not RolloutState.DONE:
            return RolloutOutcome(tuple(operations), waiting_for, halts=True)
    operations += _run(hooks.on_failure(service, now), observed)[1]
    advance = steps.advance_stage(service, new, old, analysis, now)
    if advance is not None:
        operations.append(advance)
    return RolloutOutcome(tuple(operations), waiting_for)


def _end_after_failed_hook(
    service: DesiredService, end: FinishRollout, last: HookState
) -> FinishRollout:
    """The end of a rollout whose last hook failed."""
    if service.spec.update.failure_action == "continue":
        return msgspec.structs.replace(end, cause=f"{end.cause}, although {last.text}")
    return steps.fail_rollout(service, last.text)


def _run(hook: RunHook | None, observed: Observed) -> tuple[HookState | None, list[Operation]]:
    """The state of a hook (None: there is none), and the operation that runs it if needed."""
    if hook is None or observed.hooks is None:
        return None, []
    state = observed.hooks.get(hook.id)
    if state is None:
        return HookState(is_over=False, text=f"waits for {hook.id} to start"), [hook]
    return state, []
