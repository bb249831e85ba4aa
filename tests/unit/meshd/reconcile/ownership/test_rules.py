"""Whose a project is: every case in a table."""

import pytest

from meshd.model.runtime import Holder
from meshd.reconcile.ownership.rules import Finding, Presence, judge

ME = Holder("me", "here", "/state/me")
MOVED = Holder("me", "here", "/state/old")
OTHER = Holder("other", "here", "/state/other")


@pytest.mark.parametrize(
    ("claim", "presence", "starters", "deployed", "adopted", "wished"),
    [
        (None, Presence.UNKNOWN, (), "take", "take", "take"),
        (None, Presence.UNKNOWN, ("me",), "take", "take", "take"),
        # Someone pruned the claim, and what runs is another's.
        (None, Presence.UNKNOWN, ("me", "other"), "leave", "leave", "take"),
        (ME, Presence.RUNS, ("other",), "hold", "hold", "hold"),
        # Our state was moved or restored elsewhere; a copy of it that runs is another mesh.
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
def test_who_gets_a_project(
    claim: Holder | None,
    presence: Presence,
    starters: tuple[str, ...],
    deployed: str,
    adopted: str,
    wished: str,
) -> None:
    found = Finding("shop", claim, presence, frozenset(starters))
    assert judge(found, ME).act == deployed
    assert judge(found, ME, adopting=True).act == adopted
    assert judge(found, ME, wish=True).act == wished


@pytest.mark.parametrize("presence", list(Presence))
def test_a_refusal_names_the_holder_and_what_to_do(presence: Presence) -> None:
    reason = judge(Finding("shop", OTHER, presence), ME).reason
    for word in ("project shop", "/state/other", "on here", "instance other"):
        assert word in reason
    assert ("--take-over" in reason) == (presence is not Presence.RUNS)
