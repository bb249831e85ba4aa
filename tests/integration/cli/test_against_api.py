"""The commands against a served API: their output, their requests, and the exit codes."""

import asyncio
import json
import os
import pwd
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from meshd.api.dto import DeployResult, RestartOrder, ServicePolicy
from meshd.api.server import serve
from meshd.cli.main import main
from meshd.model.certificate import CertificateStatus
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, MeshThen, ServiceThen
from meshd.model.release import Release, ReleaseCounts, RevisionCounts
from meshd.model.scaling import CallerSeen, ResourceUsage, ScaleDecision
from meshd.scaling.sizing import propose
from meshd.spec.model import Project, Resources, Service
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.commands import Meshd
from tests.support.waiting import wait_until

RELEASE = Release(
    project="shop", service="orders", number=4, revision="b", previous="a", how="deploy",
    who="me", at=100.0, changed="image app:1 → app:2", outcome="rolled-back",
    cause="5.00% of its requests failed", ended=112.0,
    counts=ReleaseCounts(
        requests=1200, errors=3, parked=2, unknown=1.5, until=112.5,
        revisions={"b": RevisionCounts(57, 3, 1), "a": RevisionCounts(1140)},
    ),
)  # fmt: skip


@pytest.fixture
def compose(tmp_path: Path) -> str:
    file = tmp_path / "compose.yml"
    file.write_text("name: shop\nservices:\n  orders:\n    image: x\n    command: [run]\n")
    return str(file)


async def test_silences_are_added_listed_and_ended(meshd: Meshd, control: FakeControl) -> None:
    done = await meshd(
        "silence", "add", "orders", "--for", "2h", "--event", "rollout", "--reason", "move"
    )
    assert done.exit_code == 0
    assert done.output == "s0: shop/orders silenced for 2 h 0 m\n"
    assert (await meshd("silence", "add", "--for", "10m")).output == (
        "s1: everything silenced for 10 m 0 s\n"
    )
    made = control.silenced[0]
    assert (made.project, made.service, made.topic, made.reason) == (
        "shop", "orders", "rollout", "move",
    )  # fmt: skip
    listed = (await meshd("silence", "ls")).output.splitlines()
    assert listed[0].split() == ["ID", "FOR", "EVENT", "ENDS", "BY", "REASON"]
    assert listed[1].split()[:3] == ["s0", "shop/orders", "rollout"]
    found = json.loads((await meshd("silence", "ls", "-o", "json")).output)
    assert [each["id"] for each in found] == ["s0", "s1"]
    assert (await meshd("silence", "rm", "s0", "s1")).output == "s0: ended\ns1: ended\n"
    assert not control.silenced
    for wrong, code in (
        (("add", "orders"), 2),
        (("add", "nonsense", "--for", "1h"), 1),
        (("add", "--for", "1h", "--event", "nonsense"), 2),
        (("add", "--for", "1h", "--reason", "x" * 201), 2),
        (("add", "orders", "--for", "1h", "--project", "bank"), 2),
        (("rm", "s9"), 1),
    ):
        done = await meshd("silence", *wrong)
        assert done.exit_code == code, done.output


async def test_ps_in_other_forms(meshd: Meshd) -> None:
    plain = (await meshd("ps")).output.splitlines()
    wide = (await meshd("ps", "-o", "wide")).output.splitlines()
    assert wide[0].split()[-3:] == ["KIND", "REVISION", "REACHED_BY"]
    assert len(wide) == len(plain)
    replicas = (await meshd("ps", "-r", "-o", "wide")).output.splitlines()
    assert replicas[0].split()[-3:] == ["NODE", "CORES", "MANAGED"]
    text = (await meshd("ps", "orders", "-o", "yaml")).output
    (found,) = YAML(typ="safe", pure=True).load(text)
    assert (found["name"], found["wanted"]) == ("orders", 3)
    refused = await meshd("ps", "--watch", "-o", "json")
    assert refused.exit_code == 2
    near = await meshd("ps", "order")
    assert "no service 'order'; did you mean orders?; known services" in near.output


async def test_ps_watches_until_it_is_interrupted(control: FakeControl, tmp_path: Path) -> None:
    """Without a terminal it prints the table again when it has changed."""
    argv = [sys.executable, "-m", "meshd", "ps", "-w", "--interval", "50ms"]
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0"):
        process = await asyncio.create_subprocess_exec(
            *argv, "--state", str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(3):
            await asyncio.wait_for(process.stdout.readline(), 30)
        control.services = control.services[:1]
        for expected in (b"\n", b"SERVICE", b"orders"):
            assert (await asyncio.wait_for(process.stdout.readline(), 30)).startswith(expected)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_inspect(meshd: Meshd) -> None:
    shown = YAML(typ="safe", pure=True).load((await meshd("inspect", "orders")).output)
    assert shown["service"]["name"] == "orders"
    assert "waiting" not in shown["service"], "empty values are left out"
    replica = json.loads((await meshd("inspect", "orders-b", "-o", "json")).output)
    assert replica["replica"]["reason"] == "exit 1"
    assert (await meshd("inspect", "ordrs")).exit_code == 1


async def test_graph_and_open(meshd: Meshd, control: FakeControl) -> None:
    control.exposition = (
        b'meshd_calls_total{service="shop/payments",caller="shop/orders"} 8\n'
        b'meshd_requests_total{service="shop/orders",method="GET",code="2xx"} 4\n'
    )
    assert "no calls in 1 ms" in (await meshd("graph", "--over", "1ms")).output
    shown = (await meshd("graph", "--over", "1ms", "--all")).output.splitlines()
    assert shown == ["outside", "  → orders  0.0/s", "    → payments  0.0/s"][: len(shown)]
    assert (
        '"orders" -> "payments"'
        in (await meshd("graph", "--over", "1ms", "--all", "-o", "dot")).output
    )
    found = json.loads((await meshd("graph", "--over", "1ms", "--all", "-o", "json")).output)
    assert {each["caller"] for each in found} == {"outside", "shop/orders"}
    assert (await meshd("open", "orders", "--print")).output.startswith("http://")


async def test_no_colours(meshd: Meshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in (await meshd("logs", "orders")).output


async def test_ps(meshd: Meshd) -> None:
    shown = await meshd("ps")
    assert shown.exit_code == 0
    header, orders, _ = shown.output.splitlines()
    assert header.split()[:4] == ["SERVICE", "STATE", "REPLICAS", "WANTED"]
    assert orders.split()[:3] == ["orders", "ok", "1/2"]
    replicas = (await meshd("ps", "-r", "orders")).output.splitlines()
    assert [line.split()[0] for line in replicas] == ["REPLICA", "orders-a", "orders-b"]
    whole = json.loads((await meshd("ps", "-o", "json")).output)
    assert [each["name"] for each in whole["services"]] == ["orders", "payments"]
    assert (await meshd("ps", "cart")).exit_code == 1
    assert (await meshd("ps", "--project", "bank")).exit_code == 1
    assert (await meshd("ps", "--project", "shop")).output == shown.output
    projects = (await meshd("ps", "--all")).output.splitlines()
    assert [line.split()[:2] for line in projects[:2]] == [["PROJECT", "STATE"], ["shop", "up"]]


async def test_top_without_a_terminal_prints_once(meshd: Meshd) -> None:
    shown = await meshd("top")
    assert (shown.exit_code, shown.output.splitlines()[0].split()[0]) == (0, "SERVICE")


async def test_top_and_explain_at_a_time_in_the_past(control: FakeControl, meshd: Meshd) -> None:
    at = float(int(time.time()) - 3600)
    point = HistoryPoint(int(at), 10, 12.5, 0.5, 0.01, 0.2, 0.3, 2.5, 2, 3, 1.25)
    control.then = MeshThen(at, (ServiceThen("shop/orders", point),))
    text = datetime.fromtimestamp(at, UTC).isoformat()
    shown = await meshd("top", "--at", text)
    header, row = shown.output.splitlines()
    assert header.split()[:3] == ["SERVICE", "TIME", "REPLICAS"]
    assert row.split()[0] == "shop/orders"
    assert [word in row for word in ("12.5", "200 ms", "1.25")] == [True, True, True]
    explained = (await meshd("explain", "orders", "--at", text)).output
    assert "It had 2 replicas ready of 3. Load over 10 s: 12.5 requests/s" in explained
    nothing = await meshd("top", "--at", "2h")
    assert (nothing.exit_code, "nothing is known about" in nothing.stderr) == (1, True)


async def test_scale(control: FakeControl, meshd: Meshd) -> None:
    assert (
        "set to 3 by hand for 10 m" in (await meshd("scale", "orders", "3", "--for", "10m")).output
    )
    assert (
        "controlled by the autoscaler again" in (await meshd("scale", "shop/orders", "auto")).output
    )
    assert control.calls == [
        ("scale", "shop", "orders", 3, 600.0),
        ("scale", "shop", "orders", None, 0.0),
    ]
    control.shortage = "the nodes have room for 40 only: a replica needs 2.00 GiB"
    above = await meshd("scale", "orders", "500")
    assert above.exit_code == 0
    assert "warning: 500 is above the maximum of " in above.stderr
    assert "warning: the nodes have room for 40 only: a replica needs 2.00 GiB; " in above.stderr
    assert (await meshd("scale", "orders", "many")).exit_code == 2
    assert (await meshd("scale", "orders", "3", "--for", "ever")).exit_code == 2
    control.refuse = Rejected("9 needed, capacity for 7")
    refused = await meshd("scale", "orders", "9")
    assert (refused.exit_code, refused.stderr) == (1, "meshd: 9 needed, capacity for 7\n")


async def test_policy(control: FakeControl, meshd: Meshd) -> None:
    by = CallerSeen("shop/orders", 4, 0, 1.0, 2.0)
    control.policy = [ServicePolicy("payments", ("shop/orders",), False, (by,))]
    fine = await meshd("policy", "audit")
    assert (fine.exit_code, fine.output) == (0, "the allow lists cover every caller\n")
    control.policy = [ServicePolicy("payments", ("shop/web",), True, (by,))]
    found = await meshd("policy", "audit", "--project", "shop")
    assert found.exit_code == 1
    assert found.output.splitlines()[1].split()[:4] == ["payments", "shop/orders", "4", "0"]
    assert found.output.rstrip().endswith("let through")
    proposed = await meshd("policy", "suggest")
    assert (proposed.exit_code, "allow: [orders]" in proposed.output) == (0, True)


async def test_drain(control: FakeControl, meshd: Meshd) -> None:
    assert (await meshd("drain", "orders-a")).exit_code == 0
    assert control.calls == [("drain", "orders-a")]
    control.refuse = NotFound("no replica x")
    assert (await meshd("drain", "x")).exit_code == 1


async def test_restart(control: FakeControl, meshd: Meshd) -> None:
    nothing = await meshd("restart", "orders")
    assert nothing.exit_code == 0
    assert nothing.stdout == "orders: no replica runs; nothing to restart\n"
    control.restarting = RestartOrder(("orders-old",), "start-first")
    control.services = tuple(
        msgspec.structs.replace(each, ready=each.desired) for each in control.status().services
    )
    done = await meshd("restart", "orders")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("orders: replacing 1 replica, start-first\n")
    assert "orders: orders-old has left\n" in done.stdout
    begun = await meshd("restart", "-d", "orders")
    assert (begun.exit_code, begun.stdout) == (0, "orders: replacing 1 replica, start-first\n")
    control.restarting = RestartOrder(("orders-a",), "start-first")
    late = await meshd("restart", "--timeout", "0.1s", "orders")
    assert late.exit_code == 1
    assert late.stderr.startswith("meshd: orders is not restarted after ")
    control.refuse = Rejected("a rollout of shop/orders has not ended")
    assert (await meshd("restart", "orders")).exit_code == 1
    assert (await meshd("restart", "nonsense")).exit_code == 1


async def test_logs(control: FakeControl, meshd: Meshd) -> None:
    control.lines = [("orders-a", "one"), ("orders-b", "[bold]two")]
    assert (await meshd("logs", "orders")).output == "orders-a | one\norders-b | [bold]two\n"
    lines = (await meshd("logs", "orders", "-n", "1", "-o", "json")).output
    assert json.loads(lines) == {"replica": "orders-b", "line": "[bold]two", "at": 0.0}
    assert control.calls[-1] == ("logs", "shop", "orders", 1)
    options = ("--previous", "--since", "2026-05-01T14:30", "--until", "2026-05-01T15:30")
    control.at = datetime(2026, 5, 1, 15, 0, 0, 250000).astimezone().timestamp()
    shown = await meshd("logs", "orders", "-t", "--replica", "orders-a", *options)
    assert shown.output.splitlines()[0] == "orders-a | 2026-05-01 15:00:00.250 one"
    query = control.queries[-1]
    assert (query.previous, query.replica, query.until - query.since) == (True, "orders-a", 3600.0)
    refused = await meshd("logs", "orders", "-f", "--previous")
    assert refused.exit_code == 2
    assert "--follow goes with neither --previous nor --until" in refused.output


async def test_logs_follow_until_the_end(control: FakeControl, meshd: Meshd) -> None:
    control.lines = [("orders-a", "old")]
    running = asyncio.ensure_future(meshd("logs", "orders", "-f"))
    async with asyncio.timeout(20):
        await wait_until(lambda: control.followers, what="the client follows")
        control.followers[0].put_nowait(("orders-c", "new"))
        control.followers[0].put_nowait(None)
        result = await running
    assert (result.exit_code, result.output) == (0, "orders-a | old\norders-c | new\n")


async def test_events(control: FakeControl, meshd: Meshd) -> None:
    for event in traffic.events():
        control.emit(event)
    shown = (await meshd("events", "-n", "2")).output.splitlines()
    assert shown[0].startswith("TIME")
    assert ["rollout.started" in shown[1], "rollout.done" in shown[2]] == [True, True]
    rollouts = await meshd("events", "orders", "--kind", "rollout", "-o", "json")
    assert [event["kind"] for event in json.loads(rollouts.output)] == [
        "rollout.started",
        "rollout.done",
    ]
    assert json.loads((await meshd("events", "cart", "-o", "json")).output) == []
    slip = await meshd("events", "cart")
    assert (slip.exit_code, "no service 'cart'; known services: " in slip.output) == (1, True)


async def test_events_of_many_pages_end_with_the_newest(control: FakeControl, meshd: Meshd) -> None:
    for number in range(1, 2501):
        control.emit(Event(number, 1.0, "deploy", "shop"))
    shown = json.loads((await meshd("events", "-n", "3", "-o", "json")).output)
    assert [event["id"] for event in shown] == [2498, 2499, 2500]


async def test_explain(control: FakeControl, meshd: Meshd) -> None:
    assert (
        "has not decided anything yet; the spec sets the number"
        in (await meshd("explain", "orders")).output
    )
    for number, at in ((1, 100.0), (2, 200.0)):
        control.emit(Event(number, at, "scale.up", "shop", "orders", "", f"{number} → more"))
    control.decided = [
        ScaleDecision(
            200.0, 3, 2, 5, "load", "more load: 40.0 requests/s",
            objectives=("p95 within 200 ms", "1 to 3 replicas"),
            signals={"arrivals_per_second": 40.0},
            model={"service_time": 0.1},
            candidates={"latency": 5, "concurrency": 2},
            limits=("5 needed, limited by the maximum of 3",),
            rejected=("2 for concurrency: latency wants 5, and the largest wins",),
        )
    ]  # fmt: skip
    shown = (await meshd("explain", "orders")).output
    for part in (
        "the autoscaler changed from 2 to 3 replicas (load): more load: 40.0 requests/s",
        "objectives  p95 within 200 ms",
        "signals     arrivals_per_second 40",
        "model       service_time 0.1",
        "candidates  latency needs 5",
        "            concurrency needs 2",
        "limits      5 needed, limited by the maximum of 3",
        "rejected    2 for concurrency",
        "2 → more",
    ):
        assert part in shown, shown
    then = json.loads(
        (await meshd("explain", "orders", "--at", "1970-01-01T00:02:30Z", "-o", "json")).output
    )
    assert [each["id"] for each in then["decisions"]] == [1]
    assert ("decisions", "shop", "orders", 150, 1) in control.calls


async def test_diff_has_three_exit_codes(control: FakeControl, meshd: Meshd, compose: str) -> None:
    nothing = await meshd("diff", "-f", compose)
    assert (nothing.exit_code, nothing.output) == (0, "nothing to do\n")
    control.plan_text = "start orders-x"
    something = await meshd("diff", "-f", compose)
    assert (something.exit_code, something.output) == (1, "start orders-x\n")
    control.missing = ("service orders: image x:1 is not on the engine",)
    missing = await meshd("diff", "-f", compose)
    assert missing.exit_code == 2
    assert "would be rejected: service orders: image x:1 is not on the engine" in missing.stderr
    assert (await meshd("deploy", "-f", compose, "--dry-run")).exit_code == 1
    control.refuse = Rejected("no")
    assert (await meshd("diff", "-f", compose)).exit_code == 2


async def test_deploy(control: FakeControl, meshd: Meshd, compose: str) -> None:
    control.plan_text = "start orders-x"
    assert (await meshd("deploy", "-f", compose, "--dry-run")).output == "start orders-x\n"
    assert control.projects == {}
    done = await meshd("deploy", "-f", compose)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "shop is up")
    assert control.projects["shop"].service("orders").command == ("run",)
    control.result = DeployResult("shop", True, False, "orders-x: exit 1\norders-x | boom")
    failed = await meshd("deploy", "-f", compose)
    assert failed.exit_code == 1
    assert "orders-x | boom" in failed.stderr
    as_json = await meshd("deploy", "-f", compose, "-o", "json")
    assert (as_json.exit_code, json.loads(as_json.output)["ok"]) == (1, False)


async def test_a_deployment_that_takes_too_long_says_what_is_missing(
    control: FakeControl, meshd: Meshd, compose: str
) -> None:
    control.result = DeployResult("shop", False, False, "orders: not ready")
    late = await meshd("deploy", "-f", compose, "--timeout", "300ms")
    assert late.exit_code == 1
    assert "not done within 300 ms" in late.stderr
    assert "orders: waiting 1/3 ready, 1 of the old revision" in late.stderr


async def test_a_replaced_deployment_is_not_a_success(
    control: FakeControl, meshd: Meshd, compose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = msgspec.structs.replace(RELEASE, number=5, who="ann", outcome="rolling")
    looks = iter([DeployResult("shop", False, False, releases=(RELEASE,))] * 2)
    after = DeployResult("shop", True, True, releases=(later,))
    monkeypatch.setattr(control, "progress", lambda _: next(looks, after))
    overtaken = await meshd("deploy", "-f", compose)
    assert overtaken.exit_code == 1
    assert "overtaken by another deployment, which continues: orders #5 by ann" in overtaken.stderr


async def test_ctrl_c_stops_the_output_but_not_the_deployment(
    control: FakeControl, tmp_path: Path, compose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.result = DeployResult("shop", False, False, "orders: not ready")
    asked: asyncio.Queue[str] = asyncio.Queue()
    tell = control.progress

    def progress(project: str) -> DeployResult:
        asked.put_nowait(project)
        return tell(project)

    monkeypatch.setattr(control, "progress", progress)
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meshd", "deploy", "-f", compose, "--state", str(tmp_path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # What runs in the background of a shell inherits that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                for _ in range(3):  # the answer to the order, and then looks at how it goes
                    await asked.get()
                process.send_signal(signal.SIGINT)
                _, complained = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 130
    assert b"the deployment of shop continues; `meshd rollout status` shows it" in complained


async def test_rollout(control: FakeControl, meshd: Meshd) -> None:
    control.projects["shop"] = Project(name="shop", services=(Service(name="orders"),))
    for event in traffic.events():
        control.emit(event)
    status = await meshd("rollout", "status", "orders")
    assert (status.exit_code, "shop done" in status.output) == (0, True)
    control.released = [RELEASE, msgspec.structs.replace(RELEASE, number=3, counts=None)]
    history = json.loads((await meshd("rollout", "history", "orders", "-o", "json")).output)
    assert [release["number"] for release in history] == [3, 4]
    table = (await meshd("rollout", "history", "orders")).output.splitlines()
    assert table[2].split()[:2] == ["orders", "#4"]
    assert "image app:1 → app:2" in table[2]
    assert "rolled-back: 5.00% of its requests failed" in table[2]
    control.result = DeployResult("shop", True, False, "never ready", releases=(RELEASE,))
    failed = await meshd("rollout", "status", "orders", "--watch")
    assert failed.exit_code == 1
    assert failed.output.splitlines()[-4:] == [
        "orders #4 rolled-back in 12 s: 1,200 requests, 3 answered with 5xx, 2 parked",
        "  old a: 1,140 served, 0 failed, 0 failed and retried",
        "  new b: 57 served, 3 failed, 1 failed and retried",
        "  incomplete: reports are missing for 1.5 worker-seconds",
    ]


async def test_a_watch_continues_over_a_restart_of_the_control_process(
    control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.projects["shop"] = Project(name="shop", services=(Service(name="orders"),))
    control.result = DeployResult("shop", False, False, "orders: not ready")
    asked: asyncio.Queue[str] = asyncio.Queue()
    tell = control.progress

    def progress(project: str) -> DeployResult:
        asked.put_nowait(project)
        return tell(project)

    monkeypatch.setattr(control, "progress", progress)
    whole = ["rollout", "status", "orders", "--watch", "--state", str(tmp_path)]
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0"):
        watching = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, whole))
        await asked.get()
        await asked.get()  # by now the first answer was shown
    control.result = DeployResult("shop", True, True)
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0"):
        watched = await watching
    assert watched.exit_code == 0, watched.output
    shown = [line for line in watched.output.splitlines() if line.startswith("shop ")]
    assert shown == ["shop in progress: orders: not ready", "shop done"]


async def test_rollouts_by_hand(control: FakeControl, meshd: Meshd) -> None:
    control.projects["shop"] = Project(name="shop", services=(Service(name="orders"),))
    control.released = [RELEASE]
    control.result = DeployResult("shop", True, True, releases=(RELEASE,))
    assert (await meshd("rollout", "pause", "orders")).exit_code == 0
    assert (await meshd("rollout", "resume", "orders")).exit_code == 0
    undone = await meshd("rollout", "undo", "orders", "--to", "2")
    assert undone.exit_code == 0
    assert (
        undone.output.splitlines()[0]
        == "orders: going back to revision b (changes: image app:1 → app:2)"
    )
    assert undone.output.splitlines()[-1] == "shop is up"
    who = pwd.getpwuid(os.getuid()).pw_name
    assert control.calls == [
        ("pause", "shop", "orders", who),
        ("resume", "shop", "orders", who),
        ("undo", "shop", "orders", 2, who),
    ]
    control.refuse = Rejected("orders has no paused rollout")
    refused = await meshd("rollout", "resume", "orders")
    assert (refused.exit_code, "orders has no paused rollout" in refused.stderr) == (1, True)


async def test_down_ends_the_daemon_with_its_last_project(
    control: FakeControl, meshd: Meshd, compose: str
) -> None:
    control.services = None
    for name in ("shop", "bar"):
        control.projects[name] = Project(name=name, services=(Service(name="orders"),))
    unclear = await meshd("down")
    assert unclear.exit_code == 1
    assert "several projects are up (bar, shop)" in unclear.stderr
    assert (await meshd("down", "bar")).exit_code == 0
    assert not control.ended.is_set()
    last = await meshd("down", "-f", compose)
    assert (last.exit_code, last.output.splitlines()[-1]) == (0, "the daemon has ended")
    assert control.ended.is_set()
    assert control.calls == [("down", "bar"), ("down", "shop"), ("shutdown", True)]


async def test_down_all_is_one_shutdown_request(control: FakeControl, meshd: Meshd) -> None:
    assert (await meshd("down", "--all")).exit_code == 0
    assert control.calls == [("shutdown", True)]
    assert (await meshd("down", "shop", "--all")).exit_code == 2


async def test_right_size(control: FakeControl, meshd: Meshd) -> None:
    use = ResourceUsage(since=1000.0, memory=100 << 20, requests=10)
    for _ in range(200):
        use.add_reading(0.1, 100 << 20, 5.0)
    control.sized = [propose("shop/orders", use, Resources(cpus=1.0, memory=1 << 30))]
    header, orders, *why = (await meshd("right-size")).output.splitlines()
    assert header.split()[:3] == ["SERVICE", "CPU_P50", "CPU_P95"]
    assert "1 CPU, 1 GiB" in orders
    assert "0.3 CPUs, 128 MiB" in orders
    assert why[0] == "shop/orders: 200 readings with work (16.7 minutes of one replica)"
    assert why[2] == "shop/orders: memory: the peak of 100 MiB and a quarter more"
    proposals = json.loads((await meshd("right-size", "orders", "-o", "json")).output)
    assert proposals[0]["proposed_memory"] == 128 << 20
    assert (await meshd("right-size", "payments")).exit_code == 1


async def test_certificates(control: FakeControl, meshd: Meshd) -> None:
    none = await meshd("certificates")
    assert none.output.startswith("no certificates: no listener has files of one, and neither ")
    assert none.exit_code == 0
    now, directory = time.time(), "https://ca.example/dir"
    good = CertificateStatus(
        ("shop.test",), "acme", directory, "valid", now + 60.5 * 86400, now + 30.5 * 86400
    )
    bad = CertificateStatus(
        ("blog.test",), "acme", directory, "failing", retry_at=now + 5430, failures=2,
        error="validation by http-01 failed: connection refused",
    )  # fmt: skip
    control.certified = [good]
    assert (await meshd("certificates")).exit_code == 0
    control.certified = [good, bad]
    shown = await meshd("certificates")
    assert shown.exit_code == 1
    header, first, second = shown.output.splitlines()
    assert header.split() == ["NAMES", "STATE", "SOURCE", "EXPIRES", "RENEWAL", "LAST_ERROR"]
    assert "acme ca.example" in first
    assert "(in 60 d)" in first or "(in 61 d)" in first
    assert "(in 1.5 h)" in second
    assert second.endswith("  validation by http-01 failed: connection refused")
    assert json.loads((await meshd("certificates", "-o", "json")).output)[1]["failures"] == 2
    assert "trying again" in (await meshd("certificates", "--retry", "Blog.test")).output
    assert control.calls == [("retry certificate", "blog.test")]
    assert (await meshd("certificates", "--admin", "127.0.0.1:1")).exit_code == 3
    assert (await meshd("certificates", "--admin", "x", "--retry", "y")).exit_code == 2


async def test_explain_says_why_a_service_waits(control: FakeControl, meshd: Meshd) -> None:
    assert "Waiting" not in (await meshd("explain", "orders")).output
    assert control.services is not None
    orders, *others = control.services
    text = "2 more to start; 2 may do so at once on the nodes"
    control.services = (msgspec.structs.replace(orders, waiting=text), *others)
    assert f"Waiting: {text}\n" in (await meshd("explain", "orders")).output


async def test_ui_prints_a_link_and_opens_it_where_there_is_a_display(
    meshd: Meshd, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def launch(url: str) -> int:
        opened.append(url)
        return 3

    monkeypatch.setattr("click.launch", launch)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = await meshd("ui", "--role", "view")
    assert (done.exit_code, done.stdout) == (0, "http://127.0.0.1:9902/#code=c\n")
    assert control.calls[-1][0] == "sign-in link"
    assert control.calls[-1][2] == "view"
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    await meshd("ui", "--print")
    assert opened == []
    done = await meshd("ui")
    assert opened == ["http://127.0.0.1:9902/#code=c"]
    assert "open the link yourself" in done.stderr
    control.refuse = Rejected("the web page was not built; from a clone, `make page` builds it")
    done = await meshd("ui")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "make page" in done.stderr
