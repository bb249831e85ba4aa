"""Observation over several passes: failures, backoff, restarts by others, taking over."""

from dataclasses import replace

import pytest

from meshd.model.operation import DrainReplica, StartReplica
from meshd.model.replica import ProbeResult, Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth, ObservedReplica, ReplicaState
from meshd.reconcile.event_recorder import phase_events
from meshd.reconcile.observe.memory import (
    FailureReport,
    ReconcileMemory,
    mark_drained,
    mark_for_replacement,
    record_failure,
    restore_memory,
    take_slot,
)
from meshd.reconcile.observe.observe import Inputs, Observed, observe
from meshd.spec.model import RestartPolicy, Service

VERSION = ("shop/web", "r1")
SEEN = ObservedReplica(
    name="a", runtime_id="1", project="shop", service="web", revision="r1",
    state=ReplicaState.RUNNING, managed=True, host="10.0.0.2", port=80,
    created_at=99.0, started_at=100.0,
)  # fmt: skip
EXITED = replace(SEEN, state=ReplicaState.EXITED, exit_code=1, host=None, finished_at=105.0)
GOOD = {"a": ProbeResult(first_good=101.0)}


class Middle:
    """A source of numbers that always returns the middle."""

    def random(self) -> float:
        return 0.5


def observe_one(
    memory: ReconcileMemory, seen: ObservedReplica | None, now: float, **inputs: object
) -> tuple[ReconcileMemory, Observed]:
    listed = {seen.name: seen} if seen else {}
    return observe(memory, Inputs(listed=listed, **inputs), now, Middle())  # type: ignore[arg-type]


def only(observed: Observed) -> Replica:
    (replica,) = observed.replicas
    return replica


@pytest.mark.parametrize(
    ("labels", "health", "phase"),
    [
        ({"mesh.health": "tcp"}, ContainerHealth.STARTING, Phase.READY),
        ({"mesh.health.path": "/x"}, ContainerHealth.STARTING, Phase.READY),
        ({"mesh.health": "none"}, ContainerHealth.STARTING, Phase.PROBING),
        ({}, ContainerHealth.STARTING, Phase.PROBING),
        ({"mesh.health": "tcp"}, ContainerHealth.UNHEALTHY, Phase.PROBING),
    ],
)
def test_an_adopted_container_with_a_probe_does_not_wait_for_the_engines_first_check(
    labels: dict[str, str], health: ContainerHealth, phase: Phase
) -> None:
    adopted = replace(SEEN, managed=False, labels=labels, health=health)
    _, observed = observe_one(ReconcileMemory(), adopted, 101.0, probes=GOOD)
    assert only(observed).phase is phase
    own = replace(adopted, managed=True)
    _, observed = observe_one(ReconcileMemory(), own, 101.0, probes=GOOD)
    assert only(observed).phase is Phase.PROBING


def test_the_address_that_answers_probes_is_used() -> None:
    adopted = replace(SEEN, managed=False, alternatives=("10.1.0.2",))
    for answers, host, others in (
        ("", "10.0.0.2", ("10.1.0.2",)),
        ("10.1.0.2", "10.1.0.2", ("10.0.0.2",)),
        ("10.7.0.2", "10.0.0.2", ("10.1.0.2",)),  # an address that it has left
    ):
        probes = {"a": ProbeResult(first_good=101.0, host=answers)}
        _, observed = observe_one(ReconcileMemory(), adopted, 101.0, probes=probes)
        assert (only(observed).host, only(observed).alternatives) == (host, others)


def test_a_replica_goes_from_pending_to_ready() -> None:
    start = StartReplica(name="a", project="shop", service="web", revision="r1", cause="wanted")
    memory, observed = observe_one(ReconcileMemory(), None, 99.0, starting={"a": start})
    assert only(observed).phase is Phase.PENDING
    memory, observed = observe_one(memory, SEEN, 100.0)
    assert only(observed).phase is Phase.PROBING
    memory, observed = observe_one(memory, SEEN, 101.0, probes=GOOD)
    assert (only(observed).phase, only(observed).ready_since) == (Phase.READY, 101.0)
    memory, observed = observe_one(
        memory, SEEN, 110.0, probes={"a": ProbeResult(bad=2, first_good=101.0)}
    )
    assert (only(observed).phase, only(observed).bad) == (Phase.READY, 2)


def test_an_exit_opens_one_backoff_slot_even_if_it_is_seen_twice() -> None:
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, probes=GOOD)
    memory, observed = observe_one(memory, EXITED, 105.0)
    memory, observed = observe_one(memory, EXITED, 106.0)
    assert only(observed).phase is Phase.FAILED
    assert [slot.attempt for slot in observed.slots[VERSION]] == [1]
    assert [f.text for f in observed.failures[VERSION]] == ["a exited with code 1 after 5.0 s"]


def test_a_replica_without_an_exit_code_ends_as_the_runtime_says() -> None:
    lost = replace(EXITED, exit_code=None, error="is lost: node w1 is down")
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, probes=GOOD)
    _, observed = observe_one(memory, lost, 105.0)
    assert only(observed).error == lost.error
    assert observed.failures[VERSION][0].text.startswith("a is lost: node w1 is down after")


def test_a_stop_by_others_is_not_a_failure() -> None:
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, probes=GOOD)
    memory, observed = observe_one(memory, replace(SEEN, state=ReplicaState.STOPPING), 104.0)
    assert only(observed).phase is Phase.STOPPING
    memory, observed = observe_one(memory, EXITED, 105.0)
    assert only(observed).phase is Phase.GONE
    assert not observed.failures
    # Its successor starts at once; if others stop that one too, the next one waits.
    (slot,) = observed.slots["shop/web", "r1"]
    assert (slot.attempt, slot.not_before) == (1, 105.0)


def test_a_container_restarted_by_others_must_pass_its_probe_again() -> None:
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, probes=GOOD)
    again = replace(SEEN, started_at=200.0)
    _, observed = observe_one(memory, again, 200.0)
    assert only(observed).phase is Phase.PROBING


def test_a_failed_replica_that_runs_after_all_must_pass_its_probe() -> None:
    created = replace(SEEN, state=ReplicaState.CREATED, host=None, started_at=0.0)
    memory, observed = observe_one(ReconcileMemory(), created, 100.0)
    assert only(observed).phase is Phase.PENDING
    memory, observed = observe_one(memory, created, 110.0)
    assert only(observed).phase is Phase.FAILED
    (failure,) = memory.failures[VERSION]
    assert failure.external, "a missing start counted against the revision"
    _, observed = observe_one(memory, SEEN, 111.0)
    assert only(observed).phase is Phase.PROBING


@pytest.mark.parametrize(
    ("attempt", "wait"), [(0, 0.0), (1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (99, 60.0)]
)
def test_the_backoff_doubles_with_each_quick_failure_up_to_the_maximum(
    attempt: int, wait: float
) -> None:
    report = FailureReport(version=VERSION, replica="a", text="crashed", attempt=attempt)
    memory = record_failure(ReconcileMemory(), report, RestartPolicy(), 100.0, Middle())
    (slot,) = memory.slots[VERSION]
    assert (slot.attempt, slot.not_before) == (attempt + 1, 100.0 + wait)


def test_a_long_life_resets_the_count_and_a_start_uses_its_slot() -> None:
    start = StartReplica(
        name="a", project="shop", service="web", revision="r1", cause="", attempt=2
    )
    memory, _ = observe_one(ReconcileMemory(), None, 99.0, starting={"a": start})
    memory, _ = observe_one(memory, SEEN, 101.0, probes=GOOD)
    quick, _ = observe_one(memory, EXITED, 105.0)
    assert [slot.attempt for slot in quick.slots[VERSION]] == [3]
    late, _ = observe_one(memory, replace(EXITED, finished_at=131.0), 131.0)
    assert [slot.attempt for slot in late.slots[VERSION]] == [1]
    next_start = StartReplica(
        name="b", project="shop", service="web", revision="r1", cause="", attempt=3
    )
    assert take_slot(quick, next_start).slots == {}


def test_a_replica_to_replace_is_known_until_it_has_left_or_runs_again() -> None:
    memory, _ = observe_one(ReconcileMemory(), SEEN, 100.0)
    memory = mark_for_replacement(memory, ["a", "unknown"], "restarted by ann")
    memory, observed = observe_one(memory, SEEN, 101.0, probes=GOOD)
    assert (only(observed).phase, only(observed).replaced_for) == (Phase.READY, "restarted by ann")
    again = replace(SEEN, started_at=200.0)
    _, observed = observe_one(memory, again, 200.0)
    assert only(observed).replaced_for == ""
    memory = mark_drained(memory, DrainReplica(name="a", cause="gone"), 102.0)
    assert mark_for_replacement(memory, ["a"], "again").records == memory.records


def test_a_drained_replica_never_returns() -> None:
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, probes=GOOD)
    memory = mark_drained(memory, DrainReplica(name="a", cause="surplus"), 102.0)
    memory, observed = observe_one(memory, SEEN, 102.0, probes=GOOD)
    assert (only(observed).phase, only(observed).drained) == (Phase.DRAINING, False)
    memory, observed = observe_one(memory, SEEN, 103.0, probes=GOOD, drained=frozenset({"a"}))
    assert only(observed).drained
    memory, observed = observe_one(memory, SEEN, 103.0, stopping=frozenset({"a"}))
    assert only(observed).phase is Phase.STOPPING
    _, observed = observe_one(memory, EXITED, 104.0)
    assert only(observed).phase is Phase.GONE


def test_a_new_control_process_continues_with_the_held_snapshot() -> None:
    other = replace(SEEN, name="b", runtime_id="2")
    fresh = replace(SEEN, name="c", runtime_id="3")
    listed = {"a": SEEN, "b": other, "c": fresh}
    memory = restore_memory({"a": 50.0}, {"b"}, listed, 500.0)
    memory, observed = observe(memory, Inputs(listed=listed), 500.0, Middle())
    phases = {r.name: (r.phase, r.ready_since) for r in observed.replicas}
    assert phases["a"] == (Phase.READY, 50.0)
    assert phases["b"][0] is Phase.DRAINING
    assert phases["c"] == (Phase.PROBING, 0.0)
    events = list(phase_events({}, observed.replicas, 500.0))
    assert "a" not in [event.replica.name for event in events]


def test_a_restarted_container_took_the_time_since_its_restart() -> None:
    restarted = replace(SEEN, created_at=10.0)
    _, observed = observe_one(ReconcileMemory(), restarted, 101.0, probes=GOOD)
    (ready,) = phase_events({}, observed.replicas, 101.0)
    assert ready.seconds == 1.0


def test_each_change_makes_one_event() -> None:
    before = ReconcileMemory()
    after, observed = observe_one(before, SEEN, 101.0, probes=GOOD)
    (ready,) = phase_events(before.records, observed.replicas, 101.0)
    assert (ready.kind, ready.text, ready.seconds) == (
        "replica.ready", "passed its probe after 2.0 s", 2.0,
    )  # fmt: skip
    again, observed = observe_one(after, SEEN, 102.0, probes=GOOD)
    assert list(phase_events(after.records, observed.replicas, 102.0)) == []
    _, observed = observe_one(again, EXITED, 105.0)
    (died,) = phase_events(again.records, observed.replicas, 105.0)
    assert (died.kind, died.text) == ("replica.died", "exited with code 1")


ONE_SHOT = {"shop/web": Service(name="web", plain=True, image="i")}


def test_a_replica_with_code_0_completes_if_it_is_not_restarted() -> None:
    done = replace(EXITED, exit_code=0)
    memory, _ = observe_one(ReconcileMemory(), SEEN, 101.0, specs=ONE_SHOT)
    memory, observed = observe_one(memory, done, 105.0, specs=ONE_SHOT)
    assert only(observed).phase is Phase.COMPLETED
    assert (only(observed).ended_at, only(observed).uptime) == (105.0, 5.0)
    assert not observed.slots
    assert not observed.failures
    _, again = observe_one(ReconcileMemory(), done, 200.0, specs=ONE_SHOT)
    assert only(again).phase is Phase.COMPLETED, "a new control process runs it again"
    _, restarted = observe_one(ReconcileMemory(), done, 105.0)
    assert only(restarted).phase is Phase.FAILED


def test_a_failure_that_is_not_restarted_is_final_and_opens_no_slot() -> None:
    _, observed = observe_one(ReconcileMemory(), EXITED, 105.0, specs=ONE_SHOT)
    assert not observed.slots
    (failure,) = observed.failures[VERSION]
    assert failure.final
    assert not failure.external


def test_a_plain_replica_needs_no_address_and_no_probe() -> None:
    unreachable = replace(SEEN, host=None, port=0)
    _, observed = observe_one(ReconcileMemory(), unreachable, 101.0, specs=ONE_SHOT)
    assert only(observed).phase is Phase.READY
    starting = replace(unreachable, health=ContainerHealth.STARTING)
    _, observed = observe_one(ReconcileMemory(), starting, 101.0, specs=ONE_SHOT)
    assert only(observed).phase is Phase.PROBING


def test_the_number_of_quick_failures_survives_the_control_process() -> None:
    crashed = replace(EXITED, labels={"mesh.attempt": "3"})
    _, observed = observe_one(ReconcileMemory(), crashed, 105.0)
    assert only(observed).attempt == 3
    assert [slot.attempt for slot in observed.slots[VERSION]] == [4]
