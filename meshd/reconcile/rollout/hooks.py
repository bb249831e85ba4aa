"""Commands beside a rollout: before it, after it, and when it failed. Pure.

A hook is a one-off job of the new revision, with an id made of its release. Whoever orders it
again, after a crash, gets the same job: it runs once.
"""

from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import RunHook
from meshd.model.rollout import RolloutState

RECENT: Final = 600.0
"""Seconds after its end in which a failed rollout's hook is still run."""


def before(service: DesiredService) -> RunHook | None:
    """What has to succeed before the first new replica is started."""
    expected = service.rollout.state in (RolloutState.ROLLING, RolloutState.HALTED)
    return _hook(service, "before") if expected and not service.rollout.stage else None


def after(service: DesiredService) -> RunHook | None:
    """What has to succeed before the rollout counts as done."""
    return _hook(service, "after") if service.rollout.is_rolling else None


def on_failure(service: DesiredService, now: float) -> RunHook | None:
    """What is run once the rollout has failed."""
    recent = now < service.rollout.since + RECENT
    return _hook(service, "on_failure") if service.rollout.is_rolling_back and recent else None


def ids(service: DesiredService, now: float) -> tuple[str, ...]:
    """The hooks whose state matters now."""
    found = (before(service), after(service), on_failure(service, now))
    return tuple(hook.id for hook in found if hook is not None)


def _hook(service: DesiredService, name: str) -> RunHook | None:
    rollout = service.rollout
    hook = getattr(service.rollout_settings or service.spec.mesh.rollout, name)
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
