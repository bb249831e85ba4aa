"""Failures of replicas on a real engine, all at once: each is healed with a named reason, and no
GET fails. For replicas that other programs stop, remove, pause, change or duplicate see
`test_must_hold` and `test_random_operations`; for all of it in virtual time
tests/sim/test_sim_healing.py."""

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.support.inside_replica import replica_pid
from tests.support.load import Load
from tests.support.mesh import TestMesh, service_text

POLICY = "{routes: [/], health: {ready: /ready, interval: 300ms, timeout: 2s}}"
DEPLOY = "{replicas: 4, resources: {limits: {memory: 64M}}}"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [pytest.param("docker", marks=pytest.mark.engine)])
async def test_failed_replicas_are_replaced_with_a_named_reason(
    mesh: TestMesh, engine_image: str
) -> None:
    text = service_text("web", "docker", engine_image, deploy=DEPLOY, policy=POLICY)
    up = await mesh.up(f"name: {mesh.environment['PROJECT']}\nservices:\n{text}")
    assert up.code == 0, up.out + up.err
    replicas = (await mesh.service("web"))["replicas"]
    hungry, ill, stuck, resting = sorted(replicas, key=lambda r: str(r["name"]))
    async with Load(mesh.address, 50, 90, path="/?ms=5", timeout=30) as load:
        await harm(resting, "/_unready?for=now")
        await mesh.until("web", lambda s: phases(s)[resting["name"]] == "unready", 20)
        await harm(hungry, "/_eat?mb=300")
        await harm(ill, "/_unhealthy")
        os.kill(replica_pid(stuck["name"]), signal.SIGSTOP)
        gone = {hungry["name"], ill["name"], stuck["name"]}
        await mesh.until("web", lambda s: not gone & set(phases(s)) and s["ready"] == 3, 60)
        await harm(resting, "/_unready?for=later")
        _, after = await mesh.until("web", lambda s: s["state"] == "ok", 20)
        await asyncio.sleep(0.5)
    assert load.result.failures == []
    assert phases(after)[resting["name"]] == "ready"
    events = await mesh.events()

    def event_texts(name: str) -> str:
        return "\n".join(f"{e['kind']} {e['text']}" for e in events if e["replica"] == name)

    assert "out of memory" in event_texts(hungry["name"])
    assert "bad probes in a row (GET /healthz answered 503)" in event_texts(ill["name"])
    assert "bad probes in a row (no answer within 2 s)" in event_texts(stuck["name"])
    assert "is not ready for requests: GET /ready answered 503" in event_texts(resting["name"])
    assert "is ready for requests again" in event_texts(resting["name"])
    assert "replica.died" not in event_texts(resting["name"])


def phases(status: dict[str, Any]) -> dict[str, str]:
    return {r["name"]: r["phase"] for r in status["replicas"]}


async def harm(replica: dict[str, Any], path: str) -> None:
    """Send a request to one replica, which need not survive to answer."""
    host, _, port = replica["address"].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await writer.drain()
    writer.close()
