"""Decisions about a lease, and when a leader has to stop."""

import pytest

from meshd.runtime.lease import (
    DURATION,
    LEASE_TRANSITIONS,
    MARGIN,
    RENEW_PAUSE,
    LeaseAction,
    LeaseRecord,
    LeaseState,
    decide,
    next_record,
    remaining,
)

STANDBY, LEADING, LOST = LeaseState
OURS = LeaseRecord("a", "m1", 3, 7, "x:1", 40)
THEIRS = LeaseRecord("b", "m2", 3, 7, "x:1", 40)


@pytest.mark.parametrize(
    ("state", "found", "unchanged", "action"),
    [
        (STANDBY, None, 0.0, LeaseAction.CREATE),
        (STANDBY, THEIRS, DURATION - 0.1, LeaseAction.WAIT),
        (STANDBY, THEIRS, DURATION, LeaseAction.TAKE),
        (STANDBY, LeaseRecord("", "m2", 3), 0.0, LeaseAction.TAKE),
        (STANDBY, OURS, 0.0, LeaseAction.RENEW),
        (STANDBY, LeaseRecord("a", "m1", 2), 0.0, LeaseAction.RENEW),
        (STANDBY, LeaseRecord("a", "m1", 4), 0.0, LeaseAction.WAIT),
        (STANDBY, LeaseRecord("a", "m1", 4), DURATION, LeaseAction.TAKE),
        (LEADING, OURS, 99.0, LeaseAction.RENEW),
        (LEADING, THEIRS, 0.0, LeaseAction.STOP),
        (LEADING, LeaseRecord("a", "m1", 4), 0.0, LeaseAction.STOP),
        (LEADING, None, 0.0, LeaseAction.STOP),
        (LOST, OURS, 99.0, LeaseAction.STOP),
    ],
    ids=["there is none", "another leads", "it expired", "it was released", "it was ours",
         "the Swarm is from a copy", "our state is outdated", "ours, outdated, and it expired",
         "we lead", "another took it", "another process of this host took it", "it was removed",
         "we led before"],
)  # fmt: skip
def test_what_a_process_does(
    state: LeaseState, found: LeaseRecord | None, unchanged: float, action: LeaseAction
) -> None:
    assert decide(state, "a", 3, found, unchanged) is action


def test_the_token_grows_with_each_leader_and_not_with_renewals() -> None:
    create, take, renew = LeaseAction.CREATE, LeaseAction.TAKE, LeaseAction.RENEW
    assert next_record(None, create, "a", "m1") == LeaseRecord("a", "m1", 1)
    assert next_record(OURS, renew, "a", "m1", "y:2") == LeaseRecord("a", "m1", 3, 8, "y:2", 40)
    assert next_record(THEIRS, take, "a", "m1") == LeaseRecord("a", "m1", 4, 8, "x:1", 40)


def test_a_leader_stops_before_another_one_may_begin() -> None:
    assert remaining(10.0, 10.0) == DURATION - MARGIN
    assert remaining(10.0, 10.0 + DURATION - MARGIN) == 0.0
    assert remaining(10.0, 99.0) < 0.0
    assert 3 * RENEW_PAUSE <= DURATION - MARGIN


def test_a_process_leads_once() -> None:
    assert LEASE_TRANSITIONS[STANDBY] == (LEADING,)
    assert LEASE_TRANSITIONS[LEADING] == (LOST,)
    assert LEASE_TRANSITIONS[LOST] == ()
