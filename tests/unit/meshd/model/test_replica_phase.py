"""The table of phases: what is shown, and that nothing goes back."""

import itertools

import pytest

from meshd.model.replica_phase import ENDED, NEXT, Facts, Phase, advance, phase_of
from meshd.model.runtime import ContainerHealth, ReplicaState

RUNNING = ReplicaState.RUNNING
SHOWN = [
    (Facts(state=None, start_underway=True), Phase.PENDING),
    (Facts(state=None), Phase.GONE),
    (Facts(state=ReplicaState.CREATED, start_underway=True), Phase.PENDING),
    (Facts(state=ReplicaState.CREATED), Phase.FAILED),
    (Facts(state=RUNNING), Phase.STARTING),
    (Facts(state=RUNNING, addressed=True), Phase.PROBING),
    (Facts(state=RUNNING, addressed=True, answered=True), Phase.READY),
    (
        Facts(state=RUNNING, addressed=True, answered=True, health=ContainerHealth.STARTING),
        Phase.PROBING,
    ),
    (
        Facts(state=RUNNING, addressed=True, answered=True, health=ContainerHealth.HEALTHY),
        Phase.READY,
    ),
    (Facts(state=RUNNING, addressed=True, answered=True, leaving=True), Phase.DRAINING),
    (Facts(state=RUNNING, leaving=True, stop_underway=True), Phase.STOPPING),
    (Facts(state=ReplicaState.STOPPING, addressed=True, answered=True), Phase.STOPPING),
    (Facts(state=ReplicaState.EXITED), Phase.FAILED),
    (Facts(state=RUNNING, addressed=True, answered=True, warm=True), Phase.PROBING),
    (Facts(state=ReplicaState.PAUSED, addressed=True, answered=True), Phase.PAUSED),
    (Facts(state=ReplicaState.PAUSED, addressed=True, leaving=True), Phase.DRAINING),
]


@pytest.mark.parametrize(("facts", "phase"), SHOWN)
def test_facts_determine_the_phase(facts: Facts, phase: Phase) -> None:
    assert phase_of(facts) is phase


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Phase.PROBING, Phase.FAILED),
        (Phase.READY, Phase.FAILED),
        (Phase.DRAINING, Phase.GONE),
        (Phase.STOPPING, Phase.GONE),
    ],
)
def test_an_exit_is_a_failure_unless_the_replica_was_leaving(before: Phase, after: Phase) -> None:
    assert advance(before, Facts(state=ReplicaState.EXITED)) is after


def test_a_ready_replica_whose_health_check_fails_does_not_go_back() -> None:
    facts = Facts(state=RUNNING, addressed=True, answered=True, health=ContainerHealth.UNHEALTHY)
    assert advance(Phase.READY, facts) is Phase.READY


def test_no_phase_can_be_reached_twice() -> None:
    reach = {phase: set(after) for phase, after in NEXT.items()}
    for middle, start in itertools.product(Phase, Phase):
        if middle in reach[start]:
            reach[start] |= reach[middle]
    assert all(phase not in after for phase, after in reach.items())
    assert all(not NEXT[phase] for phase in ENDED)
    assert set(NEXT) == set(Phase)


def test_a_ready_replica_is_never_warm_and_a_resumed_one_serves_once_it_answers() -> None:
    paused = Facts(state=ReplicaState.PAUSED, addressed=True, answered=True)
    assert advance(Phase.READY, paused) is Phase.READY
    assert advance(Phase.PROBING, paused) is Phase.PAUSED
    resumed = Facts(state=RUNNING, addressed=True)
    assert advance(Phase.PAUSED, resumed) is Phase.PAUSED
    assert advance(Phase.PAUSED, Facts(state=RUNNING, addressed=True, answered=True)) is Phase.READY
