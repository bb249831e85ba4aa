"""The next step for a job, as a table: the stored job, its container, and the step."""

from typing import Any

import pytest

from meshd.jobs.plan import LINGER, SHOW_UP, Begin, Clear, End, Halt, JobStep, Started, steps
from meshd.model.job import Job, JobState
from meshd.model.runtime import ObservedReplica, ReplicaState

NOW = 1000.0
CREATED, RUNNING, EXITED = ReplicaState.CREATED, ReplicaState.RUNNING, ReplicaState.EXITED


def job(state: str = "running", **fields: Any) -> Job:
    fields.setdefault("started", NOW - 60 if state != "waiting" else 0.0)
    return Job("j", "shop", "web", "rev", (), "by hand", NOW - 60, state=JobState(state), **fields)


def box(state: ReplicaState, name: str = "j", **fields: Any) -> ObservedReplica:
    return ObservedReplica(name, "id", "shop", "web", "rev", state, True, **fields)


def next_steps(stored: Job | None, *containers: ObservedReplica, **more: Any) -> list[JobStep]:
    seen = {each.name: each for each in containers}
    leaving, followed = more.get("leaving", ()), more.get("followed", ())
    return steps([stored] if stored else [], seen, leaving, followed, NOW)


LOST = "its container disappeared before meshd saw its end"
LATE = "did not end within its timeout of 60 s"
DOWN = "the project is being taken down"


@pytest.mark.parametrize(
    ("stored", "containers", "step"),
    [
        (job("waiting"), (), Begin("j")),
        (job("waiting"), (box(CREATED),), Clear("j")),
        (job("waiting"), (box(RUNNING, started_at=7.0),), Started("j", 7.0)),
        (job("waiting", end_state="stopped", text="by hand"), (),
         End("j", "stopped", NOW, text="by hand", has_container=False)),
        (job("waiting", text="waits for capacity: none"), (), Begin("j")),
        (job(), (box(RUNNING),), None),
        (job(), (box(EXITED, exit_code=0, finished_at=9.0),), End("j", "succeeded", 9.0, 0)),
        (job(), (box(EXITED, exit_code=3, finished_at=9.0),),
         End("j", "failed", 9.0, 3, "exited with code 3")),
        (job(), (box(EXITED, exit_code=137, oom_killed=True, finished_at=9.0),),
         End("j", "failed", 9.0, 137, "was killed: out of memory")),
        (job(end_state="stopped", text="by hand"), (box(EXITED, exit_code=143, finished_at=9.0),),
         End("j", "stopped", 9.0, 143, "by hand")),
        (job(end_state="stopped"), (box(RUNNING),), Halt("j")),
        (job(timeout=60), (box(RUNNING),), Halt("j", "timed-out", LATE)),
        (job(timeout=61), (box(RUNNING),), None),
        (job(), (), End("j", "lost", NOW, text=LOST, has_container=False)),
        (job(started=NOW - SHOW_UP + 1), (), None),
        (job("succeeded", ended=NOW - LINGER), (box(EXITED),), Clear("j")),
        (job("succeeded", ended=NOW - LINGER + 1), (box(EXITED),), None),
        (job("lost", ended=NOW), (box(RUNNING),), Halt("j")),
        (job("succeeded", ended=NOW), (), None),
        (None, (box(RUNNING),), Halt("j")),
        (None, (box(EXITED),), Clear("j")),
    ],
)  # fmt: skip
def test_step_of_one_job(
    stored: Job | None, containers: tuple[ObservedReplica, ...], step: JobStep | None
) -> None:
    assert next_steps(stored, *containers) == ([step] if step else [])


def test_all_jobs_of_a_project_that_is_taken_down_are_stopped_and_removed() -> None:
    leaving = {"shop"}
    waiting = End("j", "stopped", NOW, text=DOWN, has_container=False)
    assert next_steps(job("waiting"), leaving=leaving) == [waiting]
    assert next_steps(job(), box(RUNNING), leaving=leaving) == [Halt("j", "stopped", DOWN)]
    ended = job("succeeded", ended=NOW)
    assert next_steps(ended, box(EXITED), leaving=leaving, followed={"j"}) == [Clear("j")]


def test_a_container_whose_output_is_followed_stays() -> None:
    assert next_steps(job("succeeded", ended=NOW - 99), box(EXITED), followed={"j"}) == []
