"""Decide which mesh owns a project, where several meshes share one runtime. Pure.

`claims` asks for each project. A mesh is identified by the instance id of its state. A project has
one holder, and only the holder touches the project's replicas. A running holder keeps it in any
case. A holder that does not run loses it only if a user asks for that, since its state may return.
An adopted project has no state, so another mesh may take it once its holder has ended.
"""

from enum import Enum, StrEnum

import msgspec

from meshd.model.runtime import Holder


class Presence(StrEnum):
    """State of a holder's daemon, as far as this machine can tell."""

    RUNS = "runs"
    ENDED = "ended"
    LOST = "lost"
    """It does not run, and its state directory is gone."""
    UNKNOWN = "unknown"
    """It is on another machine."""


class ClaimAction(Enum):
    """What to do about a project."""

    HOLD = "hold"
    """This mesh holds it already."""
    TAKE = "take"
    LEAVE = "leave"
    """Another mesh holds it."""


class ClaimFacts(msgspec.Struct, frozen=True):
    """What is known about a project on the runtime.

    - `claim`: the holder that its claim names; None: unclaimed.
    - `presence`: the state of that holder's daemon.
    - `starters`: the instances that started the project's replicas.
    """

    project: str
    claim: Holder | None = None
    presence: Presence = Presence.UNKNOWN
    starters: frozenset[str] = frozenset()


class OwnershipDecision(msgspec.Struct, frozen=True):
    """What to do about a project, and why; `reason` is empty unless it is left."""

    action: ClaimAction
    reason: str = ""


def decide_ownership(
    facts: ClaimFacts, me: Holder, *, adopting: bool = False, take_over: bool = False
) -> OwnershipDecision:
    """Decide whether `me` holds the project, may take it, or must leave it.

    `adopting`: only to adopt what others started; `take_over`: a user asked to take it over.
    """
    claim = facts.claim
    if claim is None:
        others = facts.starters - {me.instance}
        if not others or take_over:
            return OwnershipDecision(ClaimAction.TAKE)
        return OwnershipDecision(ClaimAction.LEAVE, _started_elsewhere(facts.project, min(others)))
    if claim == me:
        return OwnershipDecision(ClaimAction.HOLD)
    if facts.presence is Presence.RUNS:
        return OwnershipDecision(ClaimAction.LEAVE, _held_elsewhere(facts, claim))
    if claim.instance == me.instance or take_over:
        return OwnershipDecision(ClaimAction.TAKE)
    ended = facts.presence in (Presence.ENDED, Presence.LOST)
    if adopting and ended and claim.instance not in facts.starters:
        return OwnershipDecision(ClaimAction.TAKE)
    return OwnershipDecision(ClaimAction.LEAVE, _held_elsewhere(facts, claim))


def _held_elsewhere(facts: ClaimFacts, claim: Holder) -> str:
    where = f"the mesh with its state in {claim.state} on {claim.host} (instance {claim.instance})"
    held = f"project {facts.project} is held by {where}"
    match facts.presence:
        case Presence.RUNS:
            return f"{held}, which runs; take it down there, or use another project name here"
        case Presence.ENDED:
            return (
                f"{held}, which does not run; start that mesh again with --state {claim.state}, or "
                "take the project over with --take-over"
            )
        case Presence.LOST:
            return f"{held}, and that state is gone; take the project over with --take-over"
        case Presence.UNKNOWN:
            return (
                f"{held}, and this machine cannot tell whether that runs; end it there first, "
                "then take the project over with --take-over"
            )


def _started_elsewhere(project: str, instance: str) -> str:
    return (
        f"project {project} has replicas of the mesh with instance {instance}; take it down "
        "there, or take the project over with --take-over"
    )
