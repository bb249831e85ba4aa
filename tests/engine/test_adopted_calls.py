"""Calls between containers that Compose started: the caller is known by its address."""

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.replicas import SERVER, docker, unique_project
from tests.support.inside_replica import Inside, get, ran
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.engine
PROJECT = unique_project("calls")
GATEWAY = "172.31.245.1"
FILE = """
version: "3.7"
x-all: &all
  image: {image}
  command: ["python3", "-c", {script}]
  networks: [shop]
  extra_hosts: ["menu:{gateway}", "payments:{gateway}"]
services:
  orders:
    <<: *all
    environment: {{PORT: "9000", ANSWER: orders}}
    labels: {{mesh.port: "9000", mesh.route: /orders, mesh.health: tcp}}
  menu:
    <<: *all
    environment: {{PORT: "9000", ANSWER: menu}}
    labels: {{mesh.port: "9000", mesh.health: tcp}}
  payments:
    <<: *all
    environment: {{PORT: "9000", ANSWER: paid}}
    labels: {{mesh.port: "9000", mesh.health: tcp, mesh.allow: orders}}
networks:
  shop: {{ipam: {{config: [{{subnet: 172.31.245.0/24, gateway: {gateway}}}]}}}}
"""


@pytest.fixture
async def mesh(engine_image: str) -> AsyncIterator[TestMesh]:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    made = TestMesh(folder, "docker")
    file = folder / "docker-compose.yml"
    file.write_text(FILE.format(image=engine_image, script=json.dumps(SERVER), gateway=GATEWAY))
    compose = ["docker-compose", "-p", PROJECT, "-f", str(file)]
    code, _, err = await ran(*compose, "up", "-d")
    assert code == 0, err.decode()
    yield made
    await made.run("down", "--all")
    code, _, err = await ran(*compose, "down", "-v", "-t", "1", "--remove-orphans")
    assert code == 0, err.decode()
    shutil.rmtree(folder, ignore_errors=True)


def answer(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


async def test_adopted_containers_call_each_other_as_allowed(
    mesh: TestMesh, engine_image: str
) -> None:
    up = await mesh.run(
        "up", "--adopt", "--runtime", "docker", "--listen", mesh.address,
        "--metrics", "127.0.0.1:0", "--workers", "2", "--detach",
    )  # fmt: skip
    assert up.code == 0, up.err
    for name in ("orders", "menu", "payments"):
        await mesh.until(name, lambda s: bool(s["ready"]), 30)

    def inside(service: str) -> Inside:
        return Inside(f"{PROJECT}_{service}_1", docker=True)

    async def status(service: str, host: str) -> tuple[int, str]:
        got = await inside(service).send(host, 80, get("/", host))
        return got.status, got.text

    assert await status("orders", "payments") == (200, "paid")
    assert await status("orders", "menu") == (200, "menu")
    code, text = await status("menu", "payments")
    assert (code, "may not be called" in text) == (403, True), text

    # From outside there is no way: not by name, not by the gateway, not on another network.
    assert answer(f"http://{mesh.address}/", "payments") == 404
    assert answer(f"http://{mesh.address}/orders", "x") == 200
    assert answer(f"http://{GATEWAY}/", "payments") == 403
    assert answer(f"http://{GATEWAY}/", "menu") == 200
    stranger = docker("run", "-d", "--rm", engine_image, "sleep", "60")
    try:
        got = await Inside(stranger, docker=True).send(GATEWAY, 80, get("/", "payments"))
        assert got.status == 403
    finally:
        docker("rm", "-f", stranger)

    # A copy is one of the service, and may call like the others.
    scaled = await mesh.run("scale", f"{PROJECT}/orders", "2")
    assert scaled.code == 0, scaled.err
    _, orders = await mesh.until("orders", lambda s: s["ready"] == 2, 30)
    copy = next(r["name"] for r in orders["replicas"] if r["managed"] and r["phase"] == "ready")
    got = await Inside(copy, docker=True).send("payments", 80, get("/", "payments"))
    assert (got.status, got.text) == (200, "paid")
