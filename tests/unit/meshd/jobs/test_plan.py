"""What is to be done about a job, as a table: what is kept, what runs, and the step."""

from typing import Any

import pytest

from meshd.jobs.plan import LANDING, LINGER, Begin, Clear, End, Halt, JobStep, Started, steps
from meshd.model.job import Job, JobState
from meshd.model.runtime import ObservedReplica, ReplicaState

NOW = 1000.0
CREATED, RUNNING, EXITED = ReplicaState.CREATED, ReplicaState.RUNNING, ReplicaState.EXITED


def job(state: str = "running", **fields: Any) -> Job:
    fields.setdefault("started", NOW - 60 if state != "waiting" else 0.0)
    return Job("j", "shop", "web", "rev", (), "by hand", NOW - 60, state=JobState(state), **fields)


def box(state: ReplicaState, name: str = "j", **fields: Any) -> ObservedReplica:
    return ObservedReplica(name, "id", "shop", "web", "rev", state, True, **fields)


def done(kept: Job | None, *there: ObservedReplica, **more: Any) -> list[JobStep]:
    seen = {each.name: each for each in there}
    leaving, read = more.get("leaving", ()), more.get("read", ())
    return steps([kept] if kept else [], seen, leaving, read, NOW)


LOST = "its container went away before its end was seen"
DOWN = "the project goes down"


@pytest.mark.parametrize(
    ("kept", "there", "step"),
    [
        (job("waiting"), (), Begin("j")),
        (job("waiting"), (box(CREATED),), Clear("j")),
        (job("waiting"), (box(RUNNING, started_at=7.0),), Started("j", 7.0)),
        (job("waiting", end_state="stopped", text="by hand"), (),
         End("j", "stopped", NOW, text="by hand", there=False)),
        (job("waiting", text="waits for room: none"), (), Begin("j")),
        (job(), (box(RUNNING),), None),
        (job(), (box(EXITED, exit_code=0, finished_at=9.0),), End("j", "succeeded", 9.0, 0)),
        (job(), (box(EXITED, exit_code=3, finished_at=9.0),),
         End("j", "failed", 9.0, 3, "exited with code 3")),
        (job(), (box(EXITED, exit_code=137, oom_killed=True, finished_at=9.0),),
         End("j", "failed", 9.0, 137, "was killed: out of memory")),
        (job(end_state="stopped", text="by hand"), (box(EXITED, exit_code=143, finished_at=9.0),),
         End("j", "stopped", 9.0, 143, "by hand")),
        (job(end_state="stopped"), (box(RUNNING),), Halt("j")),
        (job(timeout=60), (box(RUNNING),), Halt("j", "timed-out", "did not end within 60 s")),
        (job(timeout=61), (box(RUNNING),), None),
        (job(), (), End("j", "lost", NOW, text=LOST, there=False)),
        (job(started=NOW - LANDING + 1), (), None),
        (job("succeeded", ended=NOW - LINGER), (box(EXITED),), Clear("j")),
        (job("succeeded", ended=NOW - LINGER + 1), (box(EXITED),), None),
        (job("lost", ended=NOW), (box(RUNNING),), Halt("j")),
        (job("succeeded", ended=NOW), (), None),
        (None, (box(RUNNING),), Halt("j")),
        (None, (box(EXITED),), Clear("j")),
    ],
)  # fmt: skip
def test_one_job(
    kept: Job | None, there: tuple[ObservedReplica, ...], step: JobStep | None
) -> None:
    assert done(kept, *there) == ([step] if step else [])


def test_nothing_of_a_project_that_goes_down_stays() -> None:
    leaving = {"shop"}
    waiting = End("j", "stopped", NOW, text=DOWN, there=False)
    assert done(job("waiting"), leaving=leaving) == [waiting]
    assert done(job(), box(RUNNING), leaving=leaving) == [Halt("j", "stopped", DOWN)]
    ended = job("succeeded", ended=NOW)
    assert done(ended, box(EXITED), leaving=leaving, read={"j"}) == [Clear("j")]


def test_output_that_somebody_reads_stays() -> None:
    assert done(job("succeeded", ended=NOW - 99), box(EXITED), read={"j"}) == []
