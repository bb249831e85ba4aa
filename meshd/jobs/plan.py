"""What is to be done about jobs now: from what is kept and what runs. Pure.

Level-triggered, as the plan for replicas: every pass looks at what there is, so that a control
process that takes over goes on where the one before stopped. A job is kept before it is started
and named before its container is, so that it never runs twice.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.job import Job, JobState, update_job
from meshd.model.runtime import ObservedReplica, ReplicaState

LINGER: Final = 2.0
"""Seconds that what ended stays, for whoever still wants to read its output."""
LANDING: Final = 5.0
"""Seconds before one that was started counts as gone where it does not show."""
_LIVES: Final = (ReplicaState.RUNNING, ReplicaState.PAUSED, ReplicaState.STOPPING)


class JobStep(msgspec.Struct, frozen=True):
    """One thing to do about the job or container called `id`."""

    id: str


class Begin(JobStep, frozen=True):
    """Start its container."""


class Started(JobStep, frozen=True):
    """It runs, since `at`."""

    at: float


class Halt(JobStep, frozen=True):
    """Stop its container. The job then ends in `end_state`, for the reason in `text`; None if the
    log has no such job or it already has an end state."""

    end_state: JobState | None = None
    text: str = ""


class End(JobStep, frozen=True):
    """It is over. `there` tells whether its container is, and so its output."""

    state: JobState
    at: float
    exit_code: int | None = None
    text: str = ""
    there: bool = True


class Clear(JobStep, frozen=True):
    """Remove its ended container."""


def steps(
    jobs: Sequence[Job],
    seen: Mapping[str, ObservedReplica],
    leaving: Collection[str],
    read: Collection[str],
    now: float,
) -> list[JobStep]:
    """All that may be done now. `seen` are the containers of jobs of our projects, `leaving` the
    projects that go down, `read` the ids whose output somebody reads."""
    found: list[JobStep] = []
    known = {job.id: job for job in jobs}
    for job in jobs:
        if not job.is_over:
            step = _live(job, seen.get(job.id), job.project in leaving, now)
            found += [step] if step else []
    for name, container in seen.items():
        kept = known.get(name)
        if kept is not None and not kept.is_over:
            continue
        if container.state in _LIVES:
            found.append(Halt(name))
        elif kept is None or container.project in leaving or _stale(kept, name in read, now):
            found.append(Clear(name))
    return found


def running(job: Job, since: float) -> Job:
    """It waits for nothing any more."""
    text = job.text if job.end_state else ""
    return update_job(job, state=JobState.RUNNING, started=since, text=text)


def _stale(job: Job, read: bool, now: float) -> bool:
    return not read and now >= job.ended + LINGER


def _live(job: Job, seen: ObservedReplica | None, leaving: bool, now: float) -> JobStep | None:
    """The step for one that is not over."""
    state = seen.state if seen else None
    if seen is not None and state is ReplicaState.EXITED:
        return _end(job, seen, now)
    if job.state is JobState.WAITING:
        if state is ReplicaState.CREATED:
            return Clear(job.id)  # its start was cut short
        if seen is not None:
            return Started(job.id, seen.started_at or now)
        if job.end_state or leaving:
            text = job.text if job.end_state else "the project goes down"
            return End(job.id, JobState.STOPPED, now, text=text, there=False)
        return Begin(job.id)
    if seen is None:
        if now < job.started + LANDING:
            return None
        text = "its container went away before its end was seen"
        state_at_end = JobState(job.end_state or JobState.LOST)
        return End(job.id, state_at_end, now, text=job.text or text, there=False)
    if job.end_state:
        return Halt(job.id)
    if leaving:
        return Halt(job.id, JobState.STOPPED, "the project goes down")
    if job.timeout and now >= job.started + job.timeout:
        return Halt(job.id, JobState.TIMED_OUT, f"did not end within {job.timeout:g} s")
    return None


def _end(job: Job, seen: ObservedReplica, now: float) -> End:
    code = seen.exit_code
    at = seen.finished_at or now
    if job.end_state:
        return End(job.id, JobState(job.end_state), at, code, job.text)
    if seen.oom_killed:
        return End(job.id, JobState.FAILED, at, code, "was killed: out of memory")
    if code == 0:
        return End(job.id, JobState.SUCCEEDED, at, code)
    return End(job.id, JobState.FAILED, at, code, f"exited with code {code}")
