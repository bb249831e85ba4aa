"""Rollouts of gRPC services by `meshd up` and `meshd deploy`, under real calls."""

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.mesh import TestMesh
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
REPLICA = ROOT / "tests/support/grpc_replica.py"
RULES = "rollout: {gate: {slower: 20}}"
ANSWERS = 10
"""Answers of a stream, which lasts half a second."""


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    # A short path: the mesh's sockets are below it.
    with tempfile.TemporaryDirectory(prefix="mt-") as folder:
        made = TestMesh(Path(folder), "process")
        yield made
        await made.end()


def compose(version: str, **faults: str) -> str:
    """Return a Compose file with one service for each of `faults`, the code that it fails with. A
    busy machine is not to decide what comes of a rollout: what is slow hardly counts."""
    lines = ["name: shop", "services:"]
    for name, fault in faults.items():
        lines += [
            f"  {name}:",
            f"    command: [{sys.executable}, {REPLICA}]",
            f"    environment: {{SERVICE: shop.{name}, VERSION: '{version}', FAULT: '{fault}'}}",
            "    deploy: {replicas: 2}",
            f"    x-mesh: {{routes: [/shop.{name}], protocol: h2c, health: grpc, {RULES}}}",
        ]
    return "\n".join(lines) + "\n"


@dataclass
class Calls:
    """What the callers of one service saw: answers by version, streams, and codes of failures."""

    versions: Counter[str] = field(default_factory=Counter)
    streams: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@contextmanager
def calling(address: str, service: str, streams: int) -> Iterator[Calls]:
    """Call a service from two threads, and from others by streams, until the end of the block."""
    seen, ended, lock = Calls(), threading.Event(), threading.Lock()

    def run(call: Any) -> None:
        with grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            while not ended.wait(0.005):
                try:
                    call(channel)
                except grpc.RpcError as error:
                    with lock:
                        seen.failures[f"{error.code().name}: {error.details()}"] += 1

    def unary(channel: grpc.Channel) -> None:
        found = channel.unary_unary(f"/shop.{service}/Version")(b"", timeout=30)
        with lock:
            seen.versions[found.decode()] += 1

    def stream(channel: grpc.Channel) -> None:
        found = list(channel.unary_stream(f"/shop.{service}/Follow")(b"%d" % ANSWERS, timeout=30))
        assert len(found) == ANSWERS, found
        with lock:
            seen.streams += 1

    threads = [threading.Thread(target=run, args=(unary,)) for _ in range(2)]
    threads += [threading.Thread(target=run, args=(stream,)) for _ in range(streams)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


async def test_a_rolling_update_fails_no_call(mesh: TestMesh) -> None:
    """Unary calls and streams under way while all replicas are replaced, twice."""
    up = await mesh.up(compose("1", orders=""))
    assert up.code == 0, up.err
    with calling(mesh.address, "orders", streams=4) as seen:
        await wait_until(lambda: seen.streams > 8, 20, lambda: seen)
        for version in ("2", "3"):
            (mesh.folder / "compose.yml").write_text(compose(version, orders=""))
            deployed = await mesh.run("deploy", "-f", str(mesh.folder / "compose.yml"))
            assert deployed.code == 0, deployed.err
        streams = seen.streams
        await wait_until(lambda: seen.streams > streams + 8, 20, lambda: seen)
    print(seen)
    assert seen.failures == {}
    assert set(seen.versions) == {"1", "2", "3"}
    status = await mesh.service("orders")
    assert status["ready"] == 2
    metrics = await mesh.text("/metrics")
    (line,) = [
        each for each in metrics.splitlines()
        if each.startswith("meshd_grpc_requests_total") and '"/shop.orders/Version"' in each
    ]  # fmt: skip
    assert 'code="OK"' in line


async def test_revisions_that_answer_with_failures_are_rolled_back(mesh: TestMesh) -> None:
    """HTTP says 200 each time; `grpc-status` is what counts."""
    names = {"lost": "UNAVAILABLE", "broken": "INTERNAL", "absent": "NOT_FOUND"}
    up = await mesh.up(compose("1", **dict.fromkeys(names, "")))
    assert up.code == 0, up.err
    with (
        calling(mesh.address, "lost", 0) as lost,
        calling(mesh.address, "broken", 0) as broken,
        calling(mesh.address, "absent", 0) as absent,
    ):
        every = (lost, broken, absent)
        await wait_until(lambda: all(each.versions["1"] > 300 for each in every), 20)
        (mesh.folder / "compose.yml").write_text(compose("2", **names))
        deployed = await mesh.run("deploy", "-f", str(mesh.folder / "compose.yml"))
        assert deployed.code == 1, deployed.out + deployed.err

        async def release(name: str) -> dict[str, Any]:
            of = f"/v1/projects/shop/services/{name}/releases?limit=1"
            (found,) = await mesh.api(of)
            return dict(found)

        async def is_over() -> bool:
            return all([(await release(name))["outcome"] for name in names])

        await wait_until(is_over, 40, interval=0.2)
    for name in ("lost", "broken"):
        found = await release(name)
        assert found["outcome"] == "rolled-back", found
        assert "of its requests failed" in found["cause"], found
        assert (await mesh.service(name))["ready"] == 2
    # An answer about the request of the caller does not count against the revision.
    assert (await release("absent"))["outcome"] == "done"
    print(lost, broken, absent)
    assert set(broken.failures) == {"INTERNAL: a fault"}
    assert set(lost.failures) <= {"UNAVAILABLE: a fault"}
