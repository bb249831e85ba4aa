"""The next step for each job, from the stored jobs and the containers that run. Pure.

Called by `manager` in each pass; `step_runner` carries the steps out. Like the plan for replicas
it is level-triggered: every pass looks at everything, so a new control process continues where the
previous one stopped. A job is stored before it starts, and named before its container is created,
so it never runs twice.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.job import Job, JobState, update_job
from meshd.model.runtime import ObservedReplica, ReplicaState

LINGER: Final = 2.0
"""Seconds that an ended container stays, so that its output can still be read."""
SHOW_UP: Final = 5.0
"""Seconds that a started job has to appear on the runtime before it counts as lost."""
_RUNS: Final = (ReplicaState.RUNNING, ReplicaState.PAUSED, ReplicaState.STOPPING)


class JobStep(msgspec.Struct, frozen=True):
    """A step for the job or container called `id`."""

    id: str


class Begin(JobStep, frozen=True):
    """Start the job's container."""


class Started(JobStep, frozen=True):
    """Record that the job runs since `at` (Unix time)."""

    at: float


class Halt(JobStep, frozen=True):
    """Stop the job's container. The job then ends in `end_state`, for the reason in `text`; None if
    the log has no such job or it already has an end state."""

    end_state: JobState | None = None
    text: str = ""


class End(JobStep, frozen=True):
    """Record that the job has ended in `state`. `has_container`: its container still exists, so
    its output can be read."""

    state: JobState
    at: float
    exit_code: int | None = None
    text: str = ""
    has_container: bool = True


class Clear(JobStep, frozen=True):
    """Remove the ended container."""


def steps(
    jobs: Sequence[Job],
    seen: Mapping[str, ObservedReplica],
    leaving: Collection[str],
    followed: Collection[str],
    now: float,
) -> list[JobStep]:
    """Return every step that is possible now.

    - `seen`: the containers of jobs of our projects, by name.
    - `leaving`: the projects that are being taken down.
    - `followed`: ids of jobs whose output a client follows.
    """
    found: list[JobStep] = []
    known = {job.id: job for job in jobs}
    for job in jobs:
        if not job.is_over:
            step = _step_for_active(job, seen.get(job.id), job.project in leaving, now)
            found += [step] if step else []
    for name, container in seen.items():
        kept = known.get(name)
        if kept is not None and not kept.is_over:
            continue
        if container.state in _RUNS:
            found.append(Halt(name))
        elif (
            kept is None
            or container.project in leaving
            or (name not in followed and now >= kept.ended + LINGER)
        ):
            found.append(Clear(name))
    return found


def is_init_container(seen: ObservedReplica, starting: Collection[str]) -> bool:
    """Whether a container runs a `pre_start` step of one of the replicas that are being started."""
    return any(seen.name.startswith(f"{replica}-init") for replica in starting)


def running(job: Job, since: float) -> Job:
    """Return the job as running since then; it waits for nothing any more."""
    text = job.text if job.end_state else ""
    return update_job(job, state=JobState.RUNNING, started=since, text=text)


def _step_for_active(
    job: Job, seen: ObservedReplica | None, leaving: bool, now: float
) -> JobStep | None:
    """Return the next step of a job that has not ended; None if there is nothing to do."""
    state = seen.state if seen else None
    if seen is not None and state is ReplicaState.EXITED:
        return _end(job, seen, now)
    if job.state is JobState.WAITING:
        if state is ReplicaState.CREATED:
            return Clear(job.id)  # its start was interrupted
        if seen is not None:
            return Started(job.id, seen.started_at or now)
        if job.end_state or leaving:
            text = job.text if job.end_state else "the project is being taken down"
            return End(job.id, JobState.STOPPED, now, text=text, has_container=False)
        return Begin(job.id)
    if seen is None:
        if now < job.started + SHOW_UP:
            return None
        text = "its container disappeared before meshd saw its end"
        final_state = JobState(job.end_state or JobState.LOST)
        return End(job.id, final_state, now, text=job.text or text, has_container=False)
    if job.end_state:
        return Halt(job.id)
    if leaving:
        return Halt(job.id, JobState.STOPPED, "the project is being taken down")
    if job.timeout and now >= job.started + job.timeout:
        text = f"did not end within its timeout of {job.timeout:g} s"
        return Halt(job.id, JobState.TIMED_OUT, text)
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
