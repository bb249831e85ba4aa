"""Which mesh owns a project: every case in a table."""

import pytest

from meshd.model.runtime import Holder
from meshd.reconcile.ownership.rules import ClaimAction, ClaimFacts, Presence, decide_ownership

ME = Holder("me", "here", "/state/me")
MOVED = Holder("me", "here", "/state/old")
OTHER = Holder("other", "here", "/state/other")


@pytest.mark.parametrize(
    ("claim", "presence", "starters", "deployed", "adopted", "taken_over"),
    [
        (None, Presence.UNKNOWN, (), "take", "take", "take"),
        (None, Presence.UNKNOWN, ("me",), "take", "take", "take"),
        # The claim was removed, and the replicas belong to another mesh.
        (None, Presence.UNKNOWN, ("me", "other"), "leave", "leave", "take"),
        (ME, Presence.RUNS, ("other",), "hold", "hold", "hold"),
        # This state was moved or restored elsewhere; a copy of it that runs is another mesh.
        (MOVED, Presence.ENDED, (), "take", "take", "take"),
        (MOVED, Presence.UNKNOWN, (), "take", "take", "take"),
        (MOVED, Presence.RUNS, (), "leave", "leave", "leave"),
        (OTHER, Presence.RUNS, (), "leave", "leave", "leave"),
        (OTHER, Presence.UNKNOWN, (), "leave", "leave", "take"),
        (OTHER, Presence.ENDED, (), "leave", "take", "take"),
        (OTHER, Presence.LOST, (), "leave", "take", "take"),
        (OTHER, Presence.ENDED, ("other",), "leave", "leave", "take"),
    ],
)
def test_who_owns_a_project(
    claim: Holder | None,
    presence: Presence,
    starters: tuple[str, ...],
    deployed: str,
    adopted: str,
    taken_over: str,
) -> None:
    facts = ClaimFacts("shop", claim, presence, frozenset(starters))
    assert decide_ownership(facts, ME).action is ClaimAction(deployed)
    assert decide_ownership(facts, ME, adopting=True).action is ClaimAction(adopted)
    assert decide_ownership(facts, ME, take_over=True).action is ClaimAction(taken_over)


@pytest.mark.parametrize("presence", list(Presence))
def test_a_refusal_names_the_holder_and_the_remedy(presence: Presence) -> None:
    reason = decide_ownership(ClaimFacts("shop", OTHER, presence), ME).reason
    for word in ("project shop", "/state/other", "on here", "instance other"):
        assert word in reason
    assert ("--take-over" in reason) == (presence is not Presence.RUNS)
