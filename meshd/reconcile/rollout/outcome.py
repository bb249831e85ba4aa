"""How the rollout of one service goes on or ends in this pass: the verdict, with the commands
that have a say in it. Pure."""

from collections.abc import Sequence

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.job import HookState
from meshd.model.operation import Operation, RunHook, Settle
from meshd.model.replica import Replica
from meshd.model.rollout import RolloutState
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.rollout import hooks, steps
from meshd.reconcile.rollout.canary_analysis import NOT_YET


class RolloutOutcome(msgspec.Struct, frozen=True):
    """Steps of the rollout itself. `waits` is what it waits for; where it `halts`, nothing else
    of the service is to be done in this pass."""

    operations: tuple[Operation, ...] = ()
    waits: str = ""
    halts: bool = False


def settle(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    observed: Observed,
    now: float,
) -> RolloutOutcome:
    """Nothing before its first command succeeded; then its end, where it has come to one, and
    otherwise the end of its stage."""
    hook = hooks.before(service)
    before, operations = _asked(hook, observed)
    if before is not None and not before.ok:
        if before.is_over and service.rollout.is_rolling:
            operations.append(steps.failed(service, before.text))
        waits = "" if before.is_over else before.text
        return RolloutOutcome(tuple(operations), waits, halts=True)
    failures = observed.failures.get((service.key, service.revision), ())
    told = observed.verdicts
    traffic = None if told is None else told.get(service.key, NOT_YET)
    waits, settled = "", steps.judge(service, new, old, failures, now, traffic)
    if settled is not None and settled.outcome is RolloutState.DONE:
        last, ordered = _asked(hooks.after(service), observed)
        operations += ordered
        if last is not None and not last.is_over:
            waits, settled = last.text, None
        elif last is not None and not last.ok:
            settled = _in_spite_of(service, settled, last)
    if settled is not None:
        operations.append(settled)
        if settled.outcome is not RolloutState.DONE:
            return RolloutOutcome(tuple(operations), waits, halts=True)
    operations += _asked(hooks.on_failure(service, now), observed)[1]
    over = steps.advance(service, new, old, traffic, now)
    if over is not None:
        operations.append(over)
    return RolloutOutcome(tuple(operations), waits)


def _in_spite_of(service: DesiredService, settled: Settle, last: HookState) -> Settle:
    """The end of a rollout whose last command failed."""
    if service.spec.update.failure_action == "continue":
        return msgspec.structs.replace(settled, cause=f"{settled.cause}, though {last.text}")
    return steps.failed(service, last.text)


def _asked(hook: RunHook | None, observed: Observed) -> tuple[HookState | None, list[Operation]]:
    """How a hook stands, None where there is none; and the order to run it, if nobody did."""
    if hook is None or observed.hooks is None:
        return None, []
    state = observed.hooks.get(hook.id)
    if state is None:
        return HookState(is_over=False, text=f"{hook.id} is to run"), [hook]
    return state, []
