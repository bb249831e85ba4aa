"""Jobs on a simulated runtime, in virtual time: a command runs exactly once, also if the control
process is killed, and its result is kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshd.capacity.job_demand import JobDemand
from meshd.jobs.cron_scheduler import CronScheduler
from meshd.jobs.factory import JobFactory
from meshd.jobs.hook_runner import HookRunner
from meshd.jobs.manager import JobCapacity, JobManager
from meshd.jobs.schedule_table import ScheduleTable
from meshd.jobs.table import JobTable
from meshd.model.errors import NotFound, Rejected
from meshd.model.job import Job, JobOrder
from meshd.model.operation import RunHook
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog
from meshd.store.store import Store
from tests.fakes import virtual
from tests.fakes.reconciler import ControlLife
from tests.fakes.sim_runtime import SimRuntime


class Unlimited:
    """Capacity for every job."""

    def find_rejection(self, job: JobDemand) -> str | None:
        return ""

    def find_shortage(self, job: JobDemand, running: Sequence[JobDemand]) -> str | None:
        return ""


class Life:
    """One run of the control process, with its parts for jobs. `ahead`: seconds by which the
    host's clock is wrong."""

    def __init__(
        self,
        directory: Path,
        runtime: SimRuntime,
        capacity: JobCapacity | None = None,
        ahead: float = 0.0,
    ) -> None:
        self.ahead = ahead
        self.store = Store(directory)
        self.store.open()
        self.log = JobLog(self.store)
        self.log.open()
        self.events = EventLog(self.store)
        self.events.open()
        factory = JobFactory(self.store, self.log, self.clock, random.Random(len(self.log.jobs)))
        life = ControlLife(runtime=runtime, store=self.store, events=self.events)
        self.table = JobTable(self.store, self.log, lambda: None)
        self.hooks = HookRunner(factory, self.table, self.log)
        self.schedules = ScheduleTable(self.store, self.log, self.clock)
        self.jobs = JobManager(
            runtime=runtime,
            reconciler=life.reconciler,
            store=self.store,
            log=self.log,
            table=self.table,
            factory=factory,
            schedules=self.schedules,
            capacity=capacity or Unlimited(),
            events=self.events,
            clock=self.clock,
        )
        scheduler = CronScheduler(self.schedules, self.jobs, self.events, self.clock)
        self._reconciler = life.reconciler
        self._tasks = [
            asyncio.ensure_future(self.jobs.run()),
            asyncio.ensure_future(scheduler.run()),
        ]

    def clock(self) -> float:
        return virtual.clock() + self.ahead

    def deploy(self, schedule: Any = (), **environment: str) -> None:
        web = {"name": "web", "image": "a", "environment": environment}
        project = Project.model_validate(
            {"name": "shop", "services": [{**web, "mesh": {"schedule": schedule}}]}
        )
        revisions = {service.name: compute_revision(service) for service in project.services}
        self.store.deploy(project, revisions, "test", "", virtual.clock())

    def order(self, **fields: Any) -> Job:
        return self.jobs.begin("shop", "web", JobOrder(**fields), "by hand")

    async def over(self, id: str) -> Job:
        async with asyncio.timeout(60):
            while not self.jobs.job(id).is_over:
                await asyncio.sleep(0.1)
        return self.jobs.job(id)

    async def kill(self) -> None:
        assert not any(task.done() for task in self._tasks)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[tuple[SimRuntime, Callable[..., Life]]]:
    runtime = SimRuntime(random.Random(1))
    runtime.bad_luck = 0.0
    lives: list[Life] = []

    def live(capacity: JobCapacity | None = None, ahead: float = 0.0) -> Life:
        lives.append(Life(directory, runtime, capacity, ahead))
        return lives[-1]

    yield runtime, live
    await lives[-1].kill()


async def run_once(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live()
        life.deploy(SECONDS="3", CODE="4")
        job = life.order(command=("do", "it"))
        assert job.state == "waiting"
        assert life.table.callers() == {job.id: "shop/web"}
        lines = [line async for line in life.jobs.follow(job.id)]
        over = life.jobs.job(job.id)
        assert (over.state, over.exit_code, over.text) == ("failed", 4, "exited with code 4")
        assert over.ended - over.started == pytest.approx(3.0, abs=0.3)
        assert lines == ["line"]
        assert life.jobs.lines(job.id) == ["last line"]
        assert life.table.callers() == {}
        await asyncio.sleep(4.0)
        assert runtime.boxes == {}
        assert life.table.working_projects() == frozenset()
        kinds = [event.kind for event in life.events.since(0, 10)]
        assert kinds == ["job.started", "job.failed"]


def test_a_job_runs_once_and_leaves_exit_code_and_last_lines(tmp_path: Path) -> None:
    virtual.run(run_once(tmp_path))


async def taken_over(directory: Path) -> None:
    """Kill the control process again and again, at every stage of a job."""
    async with scene(directory) as (runtime, live):
        life = live()
        life.deploy(SECONDS="2")
        job = life.order(id="migrate-1")
        for pause in (0.0, 0.005, 0.02, 0.05, 0.5, 1.0, 1.0):
            await asyncio.sleep(pause)
            await life.kill()
            life = live()
            assert life.order(id="migrate-1").id == job.id
        over = await life.over(job.id)
        assert over.state == "succeeded"
        assert runtime.started == 1
        with pytest.raises(Rejected, match="is a job of shop/web"):
            life.jobs.begin("shop", "other", JobOrder(id="migrate-1"), "by hand")


def test_a_new_daemon_takes_over_a_job_and_never_runs_it_twice(tmp_path: Path) -> None:
    virtual.run(taken_over(tmp_path))


async def ended_early(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live()
        life.deploy(SECONDS="600")
        late, by_hand = life.order(timeout=2.0), life.order()
        await asyncio.sleep(1.0)
        life.jobs.stop(by_hand.id)
        assert (await life.over(by_hand.id)).state == "stopped"
        over = await life.over(late.id)
        assert (over.state, over.text) == ("timed-out", "did not end within its timeout of 2 s")
        left = life.order()
        await asyncio.sleep(1.0)
        life.store.leave("shop")
        assert life.table.working_projects() == {"shop"}
        assert (await life.over(left.id)).state == "stopped"
        await asyncio.sleep(1.0)
        assert runtime.boxes == {}
        assert life.table.working_projects() == frozenset()
        with pytest.raises(Rejected, match="being taken down"):
            life.order()
        life.store.forget("shop")
        await asyncio.sleep(1.0)
        assert life.table.jobs() == ()
        with pytest.raises(NotFound):
            life.order()


def test_a_job_ends_by_stop_timeout_or_down(tmp_path: Path) -> None:
    virtual.run(ended_early(tmp_path))


class OneAtATime:
    """Capacity for exactly one job."""

    def find_rejection(self, job: JobDemand) -> str | None:
        return "too big" if "BIG" in job.service.environment else ""

    def find_shortage(self, job: JobDemand, running: Sequence[JobDemand]) -> str | None:
        names = [each.id for each in running if each.id != job.id]
        return f"{names[0]} has it" if names else ""


async def waited_for(directory: Path) -> None:
    """Jobs run one after the other in the order of their orders, over a restart of the control
    process."""
    async with scene(directory) as (runtime, live):
        life = live(OneAtATime())
        life.deploy(SECONDS="3")
        first, second, third = (life.order(id=name) for name in ("j-1", "j-2", "j-3"))
        await asyncio.sleep(1.0)
        assert runtime.started == 1
        assert life.jobs.job(second.id).text == "waits for capacity: j-1 has it"
        texts = [e.text for e in life.events.since(0, 9) if e.kind == "job.waiting"]
        assert texts == [f"j-{n} waits for capacity: j-1 has it" for n in (2, 3)], "once each"
        hook = RunHook(
            project="shop", service="web", id="hook", revision=first.revision, command=("x",),
            timeout=0.0, cause="a rollout",
        )  # fmt: skip
        life.hooks.begin(hook)
        await asyncio.sleep(0.5)
        urgent = life.jobs.job("hook")
        assert life.jobs.job(urgent.id).state == "running"
        await life.kill()
        life = live(OneAtATime())
        assert (await life.over(first.id)).state == "succeeded"
        await life.over(urgent.id)
        life.jobs.stop(third.id)
        over = await life.over(second.id)
        assert (over.state, over.text) == ("succeeded", "")
        stopped = life.jobs.job(third.id)
        assert (stopped.state, stopped.started, stopped.text) == (
            "stopped",
            0,
            "was stopped by hand",
        )
        with pytest.raises(Rejected, match="a job of web cannot run: too big"):
            life.order(environment={"BIG": "yes"})


def test_a_job_without_capacity_waits_and_says_why(tmp_path: Path) -> None:
    virtual.run(waited_for(tmp_path))


async def not_started(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live()
        life.deploy(BEHAVE="missing")
        over = await life.over(life.order().id)
        assert (over.state, over.text) == (
            "failed", "could not be started: image a does not exist",
        )  # fmt: skip
        life.deploy(SECONDS="1")
        runtime.go_down()
        waiting = life.order()
        await asyncio.sleep(5.0)
        assert life.jobs.job(waiting.id).state == "waiting"
        runtime.come_back(live_restore=True)
        assert (await life.over(waiting.id)).state == "succeeded"


def test_a_job_that_cannot_start_fails_but_waits_for_an_absent_engine(tmp_path: Path) -> None:
    virtual.run(not_started(tmp_path))


async def named_wrongly(directory: Path) -> None:
    async with scene(directory) as (_, live):
        life = live()
        life.deploy()
        with pytest.raises(Rejected, match="first word is empty; expected a program"):
            life.order(command=("", "x"))
        assert life.table.jobs() == ()


def test_a_command_without_a_program_is_refused(tmp_path: Path) -> None:
    virtual.run(named_wrongly(tmp_path))


async def bounded(directory: Path) -> None:
    async with scene(directory) as (_, live):
        life = live()
        life.deploy(SECONDS="0.1")
        for number in range(25):
            await life.over(life.order(id=f"job-{number}").id)
        await life.kill()
        life = live()
        assert [job.id for job in life.table.jobs()] == [f"job-{n}" for n in range(5, 25)]


def test_history_is_bounded_and_kept_over_restarts(tmp_path: Path) -> None:
    virtual.run(bounded(tmp_path))


async def scheduled(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live()
        life.deploy(schedule={"cron": "* * * * *", "history": 3}, SECONDS="10")
        await asyncio.sleep(330.0)
        runs = life.table.jobs()
        assert runtime.started == 5
        assert [run.state for run in runs] == ["succeeded"] * 3
        assert {run.cause for run in runs} == {"schedule * * * * *"}
        (status,) = life.schedules.statuses()
        assert status.last == runs[-1]
        assert status.next is not None
        assert 0 < status.next - virtual.clock() <= 60
        # Away for ten minutes: one run makes up for them.
        await life.kill()
        await asyncio.sleep(600.0)
        life = live()
        await asyncio.sleep(5.0)
        assert runtime.started == 6
        texts = [e.text for e in life.events.since(0, 1000) if e.kind == "job.skipped"]
        assert texts == ["schedule: missed 9 earlier runs, which are dropped"]
        # A run that takes longer than until the next time is not joined by another.
        life.deploy(schedule={"cron": "* * * * *", "timeout": 150}, SECONDS="1000")
        await asyncio.sleep(265.0)
        states = [run.state for run in life.table.jobs()]
        assert states.count("running") == 1
        assert states.count("timed-out") == 1


def test_a_schedule_runs_once_on_time_and_catches_up_one_run(tmp_path: Path) -> None:
    virtual.run(scheduled(tmp_path))


async def clock_was_ahead(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live(ahead=400 * 86400.0)
        life.deploy(schedule={"cron": "* * * * *", "history": 9}, SECONDS="1")
        await asyncio.sleep(130.0)
        assert runtime.started == 2
        await life.kill()
        life = live()
        await asyncio.sleep(130.0)
        assert runtime.started == 4
        # An hour back: every minute of that hour runs again.
        life.ahead = -3600.0
        await asyncio.sleep(3600.0)
        assert runtime.started == 64
        assert [e for e in life.events.since(0, 1000) if e.kind == "job.skipped"] == []


def test_a_schedule_continues_when_the_clock_was_ahead(tmp_path: Path) -> None:
    virtual.run(clock_was_ahead(tmp_path))


async def daily_set_back(directory: Path) -> None:
    async with scene(directory) as (runtime, live):
        life = live()
        # The virtual day begins at 22:13:20.
        life.deploy(schedule={"cron": "30 22 * * *"}, SECONDS="1")
        await asyncio.sleep(1800.0)
        assert runtime.started == 1
        life.ahead = -3600.0
        await asyncio.sleep(7200.0)
        assert runtime.started == 1, "it has run that day"
        # More than three hours: the clock was wrong, and the new time counts.
        life.ahead = -12 * 3600.0
        await asyncio.sleep(11 * 3600.0)
        assert runtime.started == 2


def test_a_daily_schedule_repeats_nothing_after_a_small_correction(tmp_path: Path) -> None:
    virtual.run(daily_set_back(tmp_path))
