"""Commands of a rollout: before it, after it, and after its failure; and `pre_start`. Pure.

`outcome` asks for them, and `meshd.jobs` runs them as jobs of the new revision. A hook's id is made
of its release's number. A second order for it after a crash gets the same job: it runs once.
"""

from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import RunHook
from meshd.model.rollout import RolloutState
from meshd.reconcile.rollout.stages import rollout_settings

ON_FAILURE_WITHIN: Final = 600.0
"""Seconds after the end of a failed rollout in which its hook still runs: a control process that
was away for longer does not run it."""


def pre_start(service: DesiredService) -> list[RunHook]:
    """The `pre_start` steps of the revision that must succeed, one after the other, before its
    first replica starts. Those that run before each replica are not among them."""
    rollout = service.rollout
    expected = rollout.state in (RolloutState.ROLLING, RolloutState.HALTED) and not rollout.stage
    if not expected or not rollout.release_number or service.revision != rollout.revision:
        return []
    return [
        RunHook(
            project=service.project,
            service=service.spec.name,
            id=f"{service.project}-{service.spec.name}-init{index + 1}-{rollout.release_number}",
            revision=rollout.revision,
            command=step.command,
            timeout=0.0,
            pre_start=index,
            cause=f"pre_start step {index + 1} of release {rollout.release_number}",
        )
        for index, step in enumerate(service.spec.pre_start)
        if not step.per_replica
    ]


def before(service: DesiredService) -> RunHook | None:
    """The hook that must succeed before the first new replica starts."""
    # HALTED too: a failed hook halts the rollout, and its replicas must not start after that.
    expected = service.rollout.state in (RolloutState.ROLLING, RolloutState.HALTED)
    return _hook(service, "before") if expected and not service.rollout.stage else None


def after(service: DesiredService) -> RunHook | None:
    """The hook that must succeed before the rollout is done."""
    return _hook(service, "after") if service.rollout.is_rolling else None


def on_failure(service: DesiredService, now: float) -> RunHook | None:
    """The hook that runs once the rollout has failed."""
    recent = now < service.rollout.since + ON_FAILURE_WITHIN
    return _hook(service, "on_failure") if service.rollout.is_rolling_back and recent else None


def hook_ids(service: DesiredService, now: float) -> tuple[str, ...]:
    """Return the ids of the hooks whose state matters now."""
    hooks = (*pre_start(service), before(service), after(service), on_failure(service, now))
    return tuple(hook.id for hook in hooks if hook is not None)


def _hook(service: DesiredService, name: str) -> RunHook | None:
    rollout = service.rollout
    hook = getattr(rollout_settings(service), name)
    if hook is None or not rollout.release_number or rollout.skips_stages or service.adopted:
        return None
    word = name.replace("on_", "")
    return RunHook(
        project=service.project,
        service=service.spec.name,
        id=f"{service.project}-{service.spec.name}-{word}-{rollout.release_number}",
        revision=rollout.revision,
        command=hook.command,
        timeout=hook.timeout,
        cause=f"the {word} hook of release {rollout.release_number}",
    )
