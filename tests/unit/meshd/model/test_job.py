"""States of jobs: the transition table, and the names that are stored and sent."""

import msgspec
import pytest

from meshd.model.job import JOB_TRANSITIONS, Job, JobState


def test_every_job_state_has_a_row_in_the_transition_table() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert {state for state in JobState if not state.is_final} == {
        JobState.WAITING, JobState.RUNNING
    }  # fmt: skip


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.WAITING])
def test_every_job_state_can_be_reached_from_waiting(state: JobState) -> None:
    reached = set(JOB_TRANSITIONS[JobState.WAITING])
    for each in tuple(reached):
        reached |= set(JOB_TRANSITIONS[each])
    assert state in reached


def test_a_stored_job_keeps_its_field_names() -> None:
    job = Job("j", "shop", "web", "rev", ("run",), "by hand", 1.0, end_state=JobState.STOPPED)
    stored = msgspec.json.decode(msgspec.json.encode(job))
    assert (stored["state"], stored["verdict"]) == ("waiting", "stopped")
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job
