"""Commands beside a rollout: before it, after it, and when it failed. Pure.

A hook is a one-off job of the new revision, with an id made of its release. Whoever orders it
again, after a crash, gets the same job: it runs once.
"""

from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import RunHook

RECENT: Final = 600.0
"""Seconds after its end in which a failed rollout's hook is still run."""


def before(service: DesiredService) -> RunHook | None:
    """What has to succeed before the first new replica is started."""
    under_way = service.rollout == "rolling" or (
        service.rollout == "paused" and not service.by_hand
    )
    return _hook(service, "before") if under_way and not service.stage else None


def after(service: DesiredService) -> RunHook | None:
    """What has to succeed before the rollout counts as done."""
    return _hook(service, "after") if service.rollout == "rolling" else None


def on_failure(service: DesiredService, now: float) -> RunHook | None:
    """What is run once the rollout has failed."""
    ended = service.rollout == "rolled-back" or (
        service.rollout == "paused" and not service.by_hand
    )
    recent = now < service.rollout_since + RECENT
    return _hook(service, "on_failure") if ended and recent else None


def ids(service: DesiredService, now: float) -> tuple[str, ...]:
    """The hooks whose state matters now."""
    found = (before(service), after(service), on_failure(service, now))
    return tuple(hook.id for hook in found if hook is not None)


def _hook(service: DesiredService, name: str) -> RunHook | None:
    way = service.way or service.spec.mesh.rollout
    told = getattr(way, name)
    if told is None or not service.number or service.swift or service.adopted:
        return None
    word = name.replace("on_", "")
    return RunHook(
        project=service.project,
        service=service.spec.name,
        id=f"{service.project}-{service.spec.name}-{word}-{service.number}",
        revision=service.coming,
        command=told.command,
        timeout=told.timeout,
        cause=f"the {word} hook of release {service.number}",
    )
