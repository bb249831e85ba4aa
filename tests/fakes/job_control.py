"""A `JobControl` whose jobs end at once."""

from collections.abc import AsyncIterator, Sequence

from meshd.api.dto import JobList, ScheduleStatus
from meshd.model.errors import NotFound
from meshd.model.job import Job, JobOrder, JobState, update_job


class FakeJobControl:
    """`outcome` has the final fields of each job, `output` its log lines."""

    def __init__(self) -> None:
        self.orders: list[JobOrder] = []
        self.jobs: dict[str, Job] = {}
        self.schedules: tuple[ScheduleStatus, ...] = ()
        self.outcome: dict[str, object] = {"state": JobState.SUCCEEDED, "exit_code": 0}
        self.output = ["one", "two"]

    def begin(self, project: str, service: str, order: JobOrder, cause: str) -> Job:
        self.orders.append(order)
        number = len(self.orders)
        job = Job(
            f"{project}-{service}-job-{number}", project, service, "rev", order.command, cause,
            at=1000.0 + number, timeout=order.timeout,
        )  # fmt: skip
        self.jobs[job.id] = update_job(job, started=job.at, ended=job.at + 2.5, **self.outcome)
        return job

    def job(self, id: str) -> Job:
        if id not in self.jobs:
            raise NotFound(f"there is no job {id}")
        return self.jobs[id]

    def list(self) -> JobList:
        return JobList(tuple(reversed(self.jobs.values())), self.schedules)

    def stop(self, id: str) -> Job:
        self.jobs[id] = update_job(self.job(id), state=JobState.STOPPED)
        return self.jobs[id]

    def lines(self, id: str) -> Sequence[str]:
        self.job(id)
        return self.output

    async def follow(self, id: str) -> AsyncIterator[str]:
        for line in self.lines(id):
            yield line
