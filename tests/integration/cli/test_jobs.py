"""`meshd run` and `meshd jobs` against a served API: output, requests, and exit codes."""

import json

import pytest

from meshd.api.dto import ScheduleStatus
from meshd.model.job import JobOrder
from tests.fakes.control import FakeControl
from tests.support.commands import Meshd


async def test_run_shows_the_output_and_ends_with_the_commands_code(
    control: FakeControl, meshd: Meshd
) -> None:
    arguments = ("-e", "A=b=c", "--timeout", "2m", "orders", "--", "python", "-c", "print()", "-d")
    done = await meshd("run", *arguments)
    assert (done.exit_code, done.stdout) == (0, "one\ntwo\n")
    order = JobOrder(("python", "-c", "print()", "-d"), {"A": "b=c"}, 120.0)
    assert control.jobs.orders == [order]
    control.jobs.outcome = {"state": "failed", "exit_code": 7, "text": "exited with code 7"}
    assert (await meshd("run", "orders")).exit_code == 7
    assert (await meshd("run", "-e", "nonsense", "orders")).exit_code == 2
    assert (await meshd("run", "cart")).exit_code == 1


@pytest.mark.parametrize(
    ("outcome", "code", "error"),
    [
        ({"state": "timed-out", "exit_code": 143, "text": "late"}, 124, "timed-out: late"),
        ({"state": "failed", "text": "no such image"}, 125, "failed: no such image"),
        ({"state": "lost", "text": "went away"}, 125, "lost: went away"),
        ({"state": "stopped", "exit_code": 143, "text": "by hand"}, 143, ""),
    ],
)
async def test_run_reports_other_outcomes(
    control: FakeControl, meshd: Meshd, outcome: dict[str, object], code: int, error: str
) -> None:
    control.jobs.outcome = outcome
    done = await meshd("run", "orders")
    assert done.exit_code == code
    assert done.stderr == (f"meshd: shop-orders-job-1 {error}\n" if error else "")


async def test_run_detached_prints_the_id(meshd: Meshd) -> None:
    done = await meshd("run", "-d", "orders", "true")
    assert (done.exit_code, done.stdout) == (0, "shop-orders-job-1\n")
    shown = (await meshd("jobs")).stdout.splitlines()
    assert shown[0].split()[:4] == ["JOB", "SERVICE", "STATE", "CODE"]
    assert shown[1].split()[:4] == ["shop-orders-job-1", "shop/orders", "succeeded", "0"]
    assert "2.5 s" in shown[1]
    assert (await meshd("jobs", "logs", "shop-orders-job-1")).stdout == "one\ntwo\n"
    assert (await meshd("jobs", "stop", "shop-orders-job-1")).exit_code == 0
    assert "stopped" in (await meshd("jobs")).stdout
    assert (await meshd("jobs", "logs", "other")).exit_code == 1


async def test_jobs_lists_schedules(control: FakeControl, meshd: Meshd) -> None:
    control.jobs.schedules = (
        ScheduleStatus("shop", "orders", "nightly", "0 3 * * *", "Europe/Vienna", None),
    )
    shown = (await meshd("jobs")).stdout.splitlines()
    assert shown[1].split() == [
        "nightly", "shop/orders", "0", "3", "*", "*", "*", "Europe/Vienna", "never", "never",
    ]  # fmt: skip
    whole = json.loads((await meshd("jobs", "-o", "json")).stdout)
    assert whole["schedules"][0]["name"] == "nightly"
