"""Whose a project is, where several meshes use one runtime. Pure.

A mesh is known by the instance id of its state. A project on a runtime has one holder, and
only the holder touches the project's replicas. A holder that runs keeps it whatever is asked;
one that does not loses it only by an explicit wish, since its state may come back. What was
merely adopted is nobody's state, so that passes on once its holder is known to have ended.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from meshd.model.runtime import Holder


class Presence(StrEnum):
    """What can be told of a holder's daemon from here."""

    RUNS = "runs"
    ENDED = "ended"
    LOST = "lost"
    """It does not run, and its state directory is gone."""
    UNKNOWN = "unknown"
    """It is another machine's."""


class Finding(msgspec.Struct, frozen=True):
    """What is known of a project on the runtime: the holder that its claim names (None:
    unclaimed), what that one's daemon does, and the instances that started its replicas."""

    project: str
    claim: Holder | None = None
    presence: Presence = Presence.UNKNOWN
    starters: frozenset[str] = frozenset()


class OwnershipDecision(msgspec.Struct, frozen=True):
    """What to do about a project: it is held already, to be taken, or to be left alone,
    for the reason given."""

    act: Literal["hold", "take", "leave"]
    reason: str = ""


def judge(
    found: Finding, me: Holder, *, adopting: bool = False, wish: bool = False
) -> OwnershipDecision:
    """Whether `me` has the project, may take it, or must leave it alone. `adopting`: only to
    take in what others started; `wish`: the user asked for it to be taken over."""
    claim = found.claim
    if claim is None:
        others = found.starters - {me.instance}
        if not others or wish:
            return OwnershipDecision("take")
        return OwnershipDecision("leave", _by_labels(found.project, min(others)))
    if claim == me:
        return OwnershipDecision("hold")
    if found.presence is Presence.RUNS:
        return OwnershipDecision("leave", _refusal(found, claim))
    if claim.instance == me.instance or wish:
        return OwnershipDecision("take")
    over = found.presence in (Presence.ENDED, Presence.LOST)
    if adopting and over and claim.instance not in found.starters:
        return OwnershipDecision("take")
    return OwnershipDecision("leave", _refusal(found, claim))


def _refusal(found: Finding, claim: Holder) -> str:
    where = f"the mesh with its state in {claim.state} on {claim.host} (instance {claim.instance})"
    held = f"project {found.project} is held by {where}"
    match found.presence:
        case Presence.RUNS:
            return f"{held}, which runs; take it down there, or give this one another name"
        case Presence.ENDED:
            return (
                f"{held}, which does not run; start that again with --state {claim.state}, or "
                "take the project over with --take-over"
            )
        case Presence.LOST:
            return f"{held}, and that state is gone; take the project over with --take-over"
        case Presence.UNKNOWN:
            return (
                f"{held}, and whether that runs cannot be told from here; end it there first, "
                "then take the project over with --take-over"
            )


def _by_labels(project: str, instance: str) -> str:
    return (
        f"project {project} has replicas of the mesh with instance {instance}; take it down "
        "there, or take the project over with --take-over"
    )
