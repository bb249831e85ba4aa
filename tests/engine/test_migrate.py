"""`meshd migrate --to swarm` on a real engine, under load."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.replicas import fetch
from tests.support.load import Load
from tests.support.mesh import TestMesh
from tests.support.own_swarm import OwnNode, own_engines, own_swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow]

APPLICATION = """
name: shop
services:
  web:
    image: IMAGE
    command: [python3, -c, CODE]
    environment: {CALLS: "MESH_URL_API store"}
    depends_on: [api, store]
    deploy: {replicas: 2}
    x-mesh: {routes: [/]}
  api:
    image: IMAGE
    command: [python3, -c, CODE]
    deploy: {replicas: 2}
    x-mesh: {allow: [web]}
  store:
    image: IMAGE
    command: [python3, -c, CODE]
    environment: {PORT: "9000"}
    volumes: ["data:/data"]
volumes: {data: {}}
"""
SERVER = """
import http.server, json, os, signal, urllib.request
from contextlib import suppress
from pathlib import Path
if os.path.isdir("/data"):
    Path("/data/starts").open("a").write("x")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = {"replica": os.environ.get("MESH_REPLICA", "store")}
        if os.path.isdir("/data"):
            said["starts"] = len(Path("/data/starts").read_text())
        for each in os.environ.get("CALLS", "").split():
            url = os.environ[each] if each.startswith("MESH") else f"http://{each}:9000"
            with urllib.request.urlopen(url + "/", timeout=10) as answer:
                said[each] = json.load(answer)
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Server(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def shop(image: str) -> str:
    return APPLICATION.replace("IMAGE", image).replace("CODE", json.dumps(SERVER))


def on_engine(node: OwnNode) -> set[str]:
    """The services with containers that meshd started without the Swarm."""
    form = '{{.Label "mesh.service"}}'
    return set(
        node.docker("ps", "-a", "--filter", "label=mesh.project=shop", "--format", form).split()
    )


@pytest.mark.timeout(600)
async def test_an_application_moves_to_a_swarm_under_load(
    tmp_path: Path, engine_image: str
) -> None:
    """No request fails, although the control process is killed meanwhile. A service with a volume
    stays, and the others reach it by name."""
    with own_engines(["m1"]) as (node,):
        node.load(engine_image)
        mesh = TestMesh(
            tmp_path, "docker", f"{node.address}:8080", {"DOCKER_HOST": node.host}, node.inside
        )
        log = lambda: (mesh.state / "daemon.log").read_text()[-6000:]  # noqa: E731
        try:
            started = await mesh.up(shop(engine_image))
            assert started.code == 0, started.err
            early = await mesh.run("migrate", "--to", "swarm")
            assert early.code == 1
            assert "is not part of a Swarm; run `docker swarm init`" in early.err
            node.docker("swarm", "init", "--advertise-addr", node.address)
            taken = ("--node-listen", f"{node.address}:8080")
            refused = await mesh.run("migrate", "--to", "swarm", *taken)
            assert refused.code == 1
            assert f"cannot listen on {taken[1]}: address already in use" in refused.err
            planned = await mesh.run("migrate", "--to", "swarm", "--dry-run")
            assert planned.code == 0, planned
            assert "shop/web: moves, 2 replicas on the engine" in planned.out
            assert "shop/store: stays: volume shop_data is on m1" in planned.out
            assert (await mesh.api("/v1/status"))["runtime"] == "docker"

            async with Load(f"{node.address}:8080", 30, 400) as load:
                running = asyncio.create_task(mesh.run("migrate", "--to", "swarm", timeout=300))
                await wait_until(lambda: "shop-api" in node.docker("service", "ls"), 60, log)
                mesh.kill(mesh.child("meshd.daemon"))
                moved = await running
                assert moved.code == 0, (moved, log())
                assert "shop/web: moved" in moved.out
                assert "shop/store stays on the engine" in moved.out
                before = load.result.served
                await wait_until(lambda: load.result.served > before + 60, 20, "more requests")
            assert load.result.failures == []
            assert on_engine(node) == {"store"}
            assert len(load.result.replicas) == 4  # both replicas on both sides
        finally:
            await mesh.end()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_a_service_with_a_volume_moves_on_its_host(tmp_path: Path, engine_image: str) -> None:
    """Once it is pinned to the node of its data, it gets the same volume there, and the engine has
    nothing left."""
    with own_swarm(["m1"], engine_image) as (node,):
        mesh = TestMesh(
            tmp_path, "docker", f"{node.address}:8080", {"DOCKER_HOST": node.host}, node.inside
        )
        log = lambda: (mesh.state / "daemon.log").read_text()[-6000:]  # noqa: E731
        try:
            started = await mesh.up(shop(engine_image))
            assert started.code == 0, started.err
            moved = await mesh.run("migrate", "--to", "swarm", timeout=300)
            assert moved.code == 0, moved
            text = shop(engine_image).replace(
                '{PORT: "9000"}',
                '{PORT: "9000"}\n    deploy: {placement: {constraints: [node.hostname==m1]}}',
            )
            (tmp_path / "compose.yml").write_text(text)
            pinned = await mesh.run("deploy", "-f", str(tmp_path / "compose.yml"))
            assert pinned.code == 0, (pinned, log())
            assert on_engine(node) == {"store"}
            rest = await mesh.run("migrate", "--to", "swarm", timeout=300)
            assert rest.code == 0, (rest, log())
            assert "the application runs in the Swarm" in rest.out
            assert on_engine(node) == set()
            networks = node.docker("network", "ls", "--format", "{{.Name}}").split()
            assert [name for name in networks if name.startswith("shop")] == ["shop_default__swarm"]
            assert "--take-over-engine" not in (mesh.state / "supervisor.json").read_text()
            answer = json.loads(await fetch(node.address, 8080))
            assert answer["store"]["starts"] == 3  # on the engine twice, then in the Swarm
            done = await mesh.run("migrate", "--to", "swarm")
            assert done.code == 0
            assert "nothing is to move" in done.err
        finally:
            await mesh.end()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_a_service_with_a_volume_moves_to_another_node(
    tmp_path: Path, engine_image: str
) -> None:
    """Its data is copied there while it is stopped."""
    with own_swarm(["m1", "w1"], engine_image) as (node, other):
        mesh = TestMesh(
            tmp_path, "docker", f"{node.address}:8080", {"DOCKER_HOST": node.host}, node.inside
        )
        try:
            started = await mesh.up(shop(engine_image))
            assert started.code == 0, started.err
            moved = await mesh.run("migrate", "--to", "swarm", timeout=300)
            assert moved.code == 0, moved
            assert "`meshd node load` it on w1" in moved.out
            text = shop(engine_image).replace(
                '{PORT: "9000"}',
                '{PORT: "9000"}\n    deploy: {placement: {constraints: [node.hostname==w1]}}',
            )
            (tmp_path / "compose.yml").write_text(text)
            pinned = await mesh.run("deploy", "-f", str(tmp_path / "compose.yml"))
            assert pinned.code == 0, pinned
            assert (await mesh.run("scale", "store", "0")).code == 0
            await wait_until(lambda: on_engine(node) == set(), 30, "store has stopped")
            copied = await mesh.run("volume", "copy", "shop_data", other.host)
            assert copied.code == 0, copied
            rest = await mesh.run("migrate", "--to", "swarm", "--data-moved", "store", timeout=300)
            assert rest.code == 0, rest
            assert "the application runs in the Swarm" in rest.out
            assert (await mesh.run("scale", "store", "auto")).code == 0

            def runs(service: dict[str, Any]) -> bool:
                ready = [each for each in service["replicas"] if each["phase"] == "ready"]
                return [each["node"] for each in ready] == ["w1"]

            await mesh.until("store", runs, 60)
            said: dict[str, Any] = {}

            async def answers() -> bool:
                """Whether the name leads to the other node: nodes learn such addresses from each
                other, within seconds."""
                with suppress(OSError):
                    said.update(json.loads(await fetch(node.address, 8080)))
                return "store" in said

            await wait_until(answers, 30, "web reaches store on the other node")
            assert said["store"]["starts"] == 3
        finally:
            await mesh.end()
