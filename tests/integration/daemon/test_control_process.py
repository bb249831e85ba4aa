"""The control process with the process runtime and the real proxy, from the API to a request."""

import asyncio
import contextlib
import getpass
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshd.api.client import Client, NoDaemon, wait_for_daemon
from meshd.api.dto import DeployResult, ReplicaStatus, ServiceStatus
from meshd.cli.daemon_process import DaemonOptions, DaemonProcess, prepare_state, spawn
from meshd.control.deploy.progress import UNROUTED
from meshd.model.errors import NotFound, Rejected
from meshd.model.output import OutputQuery
from meshd.spec.model import Project, Scale
from tests.support.waiting import elapse, wait_until

APP = """
import os, signal, sys, threading, time, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one send for each response, so that a killed replica leaves no part of one
    def do_GET(self):
        status, body = 200, os.environ.get("VERSION", "1").encode()
        if self.path == "/healthz" and os.environ.get("SICK"):
            status = 503
        if self.path == "/slow":
            time.sleep(0.1)
        if self.path == "/pid":
            body = str(os.getpid()).encode()
        if self.path.startswith("/call/"):
            url = os.environ["MESH_URL_" + self.path[6:].upper()]
            try:
                body = urllib.request.urlopen(url + "/").read()
            except urllib.error.HTTPError as error:
                status, body = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

def end(*_):
    threading.Thread(target=server.shutdown).start()

signal.signal(signal.SIGTERM, end)
if os.environ.get("CRASH"):
    print("cannot open the database", flush=True)
    sys.exit(3)
server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
"""


def shop(version: str = "1", replicas: int = 2, path: str = "/", **environment: str) -> Project:
    """Return a project where `front` may call `back`; the public route leads to `front`. A busy
    machine is not to decide what comes of a rollout: what is slow hardly counts."""
    health: dict[str, Any] = {"interval": 0.2}
    if "SICK" in environment:
        health["start_timeout"] = 8.0

    def service(name: str, count: int, **mesh: Any) -> dict[str, Any]:
        return {
            "name": name,
            "command": ("python3", "-c", APP),
            "replicas": count,
            "stop_grace_period": 5,
            "update": {"monitor": 0.5},
            "mesh": {
                "health": health,
                "drain": 5,
                "rollout": {"gate": {"slower": 20}},
                **mesh,
            },
        }

    front = service("front", replicas, routes=({"path": path},))
    front["environment"] = {"VERSION": version, **environment}
    back = service("back", 1, allow=("front",))
    alone = service("alone", 1, allow=("back",))
    return Project.model_validate({"name": "shop", "services": [front, back, alone]})


class Mesh:
    """One daemon, its client, and its public address."""

    def __init__(self, daemon: DaemonProcess, client: Client, address: str) -> None:
        self.daemon = daemon
        self.client = client
        self.url = f"http://{address}"

    async def deploy(self, project: Project, within: float = 30.0) -> DeployResult:
        await self.client.deploy(project)

        async def done() -> bool:
            return (await self.client.progress(project.name)).done

        await wait_until(done, within, "the deployment is done", interval=0.05)
        return await self.client.progress(project.name)

    async def service(self, name: str) -> ServiceStatus:
        status = await self.client.status()
        (found,) = [s for s in status.services if s.name == name]
        return found

    async def replicas(self, service: str = "front") -> dict[str, ReplicaStatus]:
        return {replica.name: replica for replica in (await self.service(service)).replicas}

    async def until_ready(self, count: int, service: str = "front", within: float = 20.0) -> float:
        """Wait until exactly `count` replicas exist and are ready; return the seconds it took."""

        async def ready() -> bool:
            phases = [r.phase for r in (await self.replicas(service)).values()]
            return phases == ["ready"] * count

        return await wait_until(ready, within, f"{count} ready replicas", interval=0.02)

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    @asynccontextmanager
    async def load(self, path: str = "/", clients: int = 4) -> AsyncIterator[Counter[str]]:
        """Send steady GETs meanwhile; count answers by `status body` and failures by their text."""
        answers: Counter[str] = Counter()
        end = asyncio.Event()

        async def client(session: aiohttp.ClientSession) -> None:
            while not end.is_set():
                try:
                    async with session.get(self.url + path) as answer:
                        answers[f"{answer.status} {await answer.text()}"] += 1
                except aiohttp.ClientError as error:
                    answers[repr(error)] += 1
                await elapse(0.02, "between two requests of a client")

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(client(session))
            yield answers
            end.set()

    def pids(self, command: str) -> list[int]:
        """Return the process ids of the supervisor's children with this in their command."""
        listing = subprocess.run(
            ["pgrep", "-P", str(self.daemon.process.pid), "-f", command],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [int(pid) for pid in listing.stdout.split()]

    def control_pid(self) -> int:
        """Return the process id of the control process."""
        return self.pids("meshd.daemon")[0]


@pytest.fixture
async def mesh(tmp_path: Path, free_port: int) -> AsyncIterator[Mesh]:
    state = tmp_path / "s"
    prepare_state(state)
    address = f"127.0.0.1:{free_port}"
    daemon = spawn(DaemonOptions(state, "process", (address,), "127.0.0.1:0", workers=2))
    try:
        assert await wait_for_daemon(state / "admin.sock", 20) is not None, daemon.log_tail()
        async with Client(state / "admin.sock") as client:
            yield Mesh(daemon, client, address)
            await client.shutdown(stop_replicas=True)
        assert await daemon.has_ended(20), daemon.log_tail()
    finally:
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGKILL)
        await daemon.has_ended(5)


async def test_deploy_serve_call_and_down(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    assert await mesh.get("/") == (200, "1")
    assert await mesh.get("/call/back") == (200, "1")
    status, text = await mesh.get("/call/alone")
    assert status == 403, text
    assert (await mesh.client.plan(shop())).plan == ""
    plan = (await mesh.client.plan(shop("2", replicas=1))).plan.splitlines()
    assert [line.split()[0] for line in plan] == ["drain", "stop", "prepare", "start",
                                                  "drain", "stop"]  # fmt: skip
    await mesh.client.down("shop")
    assert (await mesh.client.status()).services == ()


async def test_no_process_holds_signals_for_good(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    pids = [mesh.daemon.process.pid]
    for pid in pids:
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    assert sum(b"serve_forever" in command for command in commands) == 4
    for pid, command in zip(pids, commands, strict=True):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "SigBlk:\t0000000000000000\n" in status, (command, status)


async def test_a_deployment_is_done_once_every_worker_routes_by_it(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    worker = mesh.pids("proxy.worker")[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        await mesh.client.deploy(shop(path="/moved"))
        await elapse(0.3, "the other worker routes by the deployment")
        progress = await mesh.client.progress("shop")
        assert (progress.done, progress.detail) == (False, UNROUTED)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (await mesh.deploy(shop(path="/moved"))).ok
    assert {await mesh.get("/moved") for _ in range(20)} == {(200, "1")}
    assert {(await mesh.get("/"))[0] for _ in range(20)} == {404}


async def test_a_killed_replica_costs_no_request_and_is_replaced(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    async with mesh.load() as answers:
        await elapse(0.5, "load before the kill")
        _, pid = await mesh.get("/pid")
        before = set(await mesh.replicas())
        os.kill(int(pid), signal.SIGKILL)

        async def missed() -> bool:
            return set(await mesh.replicas()) != before

        await wait_until(missed, 10, "the killed replica is missed")
        healed = await mesh.until_ready(2)
        await elapse(0.5, "load after the repair")
    print(f"healed {healed:.2f} s after it was missed, {answers}")
    assert set(answers) == {"200 1"}
    assert len(before & set(await mesh.replicas())) == 1


async def test_a_rolling_update_drops_no_request(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop("1"))).ok
    async with mesh.load() as answers:
        await elapse(0.3, "load before the rollout")
        result = await mesh.deploy(shop("2"))
        await elapse(0.3, "load after the rollout")
    assert result.ok, result
    assert set(answers) == {"200 1", "200 2"}
    assert await mesh.get("/") == (200, "2")


@pytest.mark.parametrize(
    ("environment", "evidence"),
    [
        ({"CRASH": "1"}, ("exited with code 3", "cannot open the database")),
        ({"SICK": "1"}, ("not healthy within 8 s", "GET /healthz answered 503")),
    ],
)
async def test_a_bad_revision_is_rolled_back_and_touches_no_request(
    mesh: Mesh, environment: dict[str, str], evidence: tuple[str, ...]
) -> None:
    assert (await mesh.deploy(shop("1"))).ok
    before = set(await mesh.replicas())
    async with mesh.load() as answers:
        result = await mesh.deploy(shop("2", **environment))
    assert not result.ok
    assert all(text in result.detail for text in evidence), result.detail
    assert set(answers) == {"200 1"}

    async def restored() -> bool:
        return set(await mesh.replicas()) == before

    await wait_until(restored, 10, "only the replicas of the old revision are left", interval=0.05)


async def test_a_crashing_first_deployment_fails_with_its_last_output(mesh: Mesh) -> None:
    result = await mesh.deploy(shop(CRASH="1"))
    assert not result.ok
    assert "cannot open the database" in result.detail

    async def loops() -> bool:
        return (await mesh.service("front")).state == "crash-loop"

    await wait_until(loops, 10, "the service is in a crash loop", interval=0.05)


async def test_a_killed_control_process_loses_no_request_and_no_replica(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    before = await mesh.replicas()
    epoch, _ = (await mesh.client.status()).generation
    async with mesh.load() as answers:
        await elapse(0.3, "load before the kill")
        os.kill(mesh.control_pid(), signal.SIGKILL)

        async def restarted() -> bool:
            status = await wait_for_daemon(mesh.daemon.state / "admin.sock", 20)
            return status is not None and status.generation[0] != epoch

        await wait_until(restarted, 20, "a new control process answers", interval=0.05)
        await mesh.until_ready(2)
        await elapse(1.0, "load after the restart")
    assert set(answers) == {"200 1"}
    after = await mesh.replicas()
    assert {n: r.address for n, r in after.items()} == {n: r.address for n, r in before.items()}
    assert (await mesh.client.status()).generation[0] == epoch + 1
    assert await mesh.get("/call/back") == (200, "1")


async def test_the_output_of_ended_replicas_is_kept(mesh: Mesh) -> None:
    await mesh.deploy(shop(CRASH="1"))

    async def kept() -> bool:
        lines = await mesh.client.logs("shop", "front", OutputQuery(previous=True))
        return sum("cannot open the database" in line.line for line in lines) >= 2

    await wait_until(kept, 20, "the output of two crashed replicas is kept", interval=0.1)
    lines = await mesh.client.logs("shop", "front", OutputQuery(previous=True))
    names = list(dict.fromkeys(line.replica for line in lines))
    first = [line.line for line in lines if line.replica == names[0]]
    assert first[0] == "cannot open the database"
    assert first[-1].startswith(f"--- {names[0]} exited with code 3")
    assert all(abs(line.at - time.time()) < 120 for line in lines)
    one = await mesh.client.logs("shop", "front", OutputQuery(1, previous=True, replica=names[1]))
    assert [line.replica for line in one] == [names[1]]
    assert await mesh.client.logs("shop", "front", OutputQuery(previous=True, until=1.0)) == []
    with pytest.raises(NotFound, match="no replica 'none'; ended replicas with kept output of"):
        await mesh.client.logs("shop", "front", OutputQuery(previous=True, replica="none"))
    # A new control process still has it.
    os.kill(mesh.control_pid(), signal.SIGKILL)

    async def still_kept() -> bool:
        try:
            after = await mesh.client.logs("shop", "front", OutputQuery(previous=True))
        except (NoDaemon, NotFound):
            return False
        return names[1] in {line.replica for line in after}

    await wait_until(still_kept, 20, "kept over a restart", interval=0.1)


async def test_a_hung_control_process_is_replaced(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    before = await mesh.replicas()
    hung = mesh.control_pid()
    os.kill(hung, signal.SIGSTOP)
    took = await wait_until(
        lambda: not os.path.exists(f"/proc/{hung}"), 15, "the hung process is killed", 0.05
    )
    print(f"replaced after {took:.1f} s (10 s asked for)")
    assert await wait_for_daemon(mesh.daemon.state / "admin.sock", 20) is not None
    await mesh.until_ready(2)
    after = await mesh.replicas()
    assert {n: r.address for n, r in after.items()} == {n: r.address for n, r in before.items()}
    (event,) = [e for e in await mesh.client.events() if e.kind == "control.restarted"]
    assert "killed by SIGKILL by the supervisor: no sign of life for 10 s" in event.text


async def test_scale_and_drain_by_hand(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    await mesh.client.scale("shop", "front", 4)
    await mesh.until_ready(4)
    await mesh.client.scale("shop", "front", None)
    await mesh.until_ready(2)
    before = set(await mesh.replicas())
    drained = sorted(before)[0]
    await mesh.client.drain(drained)

    async def gone() -> bool:
        return drained not in await mesh.replicas()

    await wait_until(gone, 10, f"{drained} is gone", interval=0.05)
    await mesh.until_ready(2)
    kinds = {event.kind for event in await mesh.client.events()}
    assert {"deploy", "replica.ready", "scale.override", "replica.draining"} <= kinds


async def test_a_restart_replaces_every_replica_and_keeps_the_revision(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    await mesh.until_ready(2)
    before = await mesh.replicas()
    order = await mesh.client.restart("shop", "front")
    assert (set(order.replicas), order.order) == (set(before), "start-first")
    lowest = len(before)

    async def replaced() -> bool:
        nonlocal lowest
        now = await mesh.replicas()
        lowest = min(lowest, sum(r.phase == "ready" for r in now.values()))
        return set(now).isdisjoint(before) and len(now) == 2

    await wait_until(replaced, 20, "every replica is replaced", interval=0.02)
    await mesh.until_ready(2)
    assert lowest == 2
    after = await mesh.replicas()
    assert {r.revision for r in after.values()} == {r.revision for r in before.values()}
    events = await mesh.client.events()
    (event,) = [e for e in events if e.kind == "service.restart"]
    assert event.text.endswith(f"restarted by {getpass.getuser()}")
    drained = [e.text for e in events if e.kind == "replica.draining"]
    assert len(drained) == 2
    assert all(f"restarted by {getpass.getuser()}" in text for text in drained)


async def test_a_hanging_replica_is_removed_at_once_and_replaced(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    _, pid = await mesh.get("/pid")
    before = set(await mesh.replicas())
    os.kill(int(pid), signal.SIGSTOP)
    try:

        async def evicted() -> bool:
            return len(before & set(await mesh.replicas())) < 2

        await wait_until(evicted, 20, "the hanging replica is removed", interval=0.05)
        await mesh.until_ready(2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    kinds = {event.kind for event in await mesh.client.events()}
    assert "replica.unhealthy" in kinds


async def test_load_scales_up_and_decisions_are_events(mesh: Mesh) -> None:
    project = shop(replicas=1)
    front = project.services[0]
    scale = Scale(min=1, max=3, concurrency=2)
    scaled = front.model_copy(update={"mesh": front.mesh.model_copy(update={"scale": scale})})
    project = project.model_copy(update={"services": (scaled, *project.services[1:])})
    assert (await mesh.deploy(project)).ok
    started = time.monotonic()
    async with mesh.load("/slow", clients=12) as answers:

        async def scaled_up() -> bool:
            return (await mesh.service("front")).desired >= 2

        await wait_until(scaled_up, 30, "scaled up", interval=0.05)
        decided = time.monotonic() - started
        await mesh.until_ready(3)
    print(f"scaled up {decided:.1f} s after the load began; {answers}")
    assert decided < 15
    assert set(answers) == {"200 1"}
    (up, *_) = [event for event in await mesh.client.events() if event.kind == "scale.up"]
    assert up.text.startswith("1 → ")
    assert up.numbers


async def test_a_service_that_cannot_run_is_rejected_without_changes(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    broken = shop().model_copy(
        update={"services": (shop().services[0].model_copy(update={"command": None}),)}
    )
    with pytest.raises(Rejected, match=r"service front: has no command"):
        await mesh.client.deploy(broken)
    assert len((await mesh.client.status()).services) == 3


async def test_a_route_of_another_project_is_refused_with_both_names(mesh: Mesh) -> None:
    assert (await mesh.deploy(shop())).ok
    blog = shop(version="2").model_copy(update={"name": "blog"})
    taken = r"route / of blog/front is already taken by shop/front"
    with pytest.raises(Rejected, match=taken):
        await mesh.client.deploy(blog)
    with pytest.raises(Rejected, match=taken):
        await mesh.client.plan(blog)
    assert {s.project for s in (await mesh.client.status()).services} == {"shop"}
    assert (await mesh.get("/"))[1].startswith("1")
    assert (await mesh.deploy(shop(version="3"))).ok  # its own route is not a conflict


async def test_a_second_daemon_on_the_same_state_is_refused(mesh: Mesh) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "meshd.daemon", "--state", str(mesh.daemon.state),
         "--runtime", "process", "--metrics", "127.0.0.1:0"],
        capture_output=True, check=False, text=True, timeout=20,
    )  # fmt: skip
    assert second.returncode == 2
    assert f"held by the daemon with process id {mesh.control_pid()}" in second.stderr
