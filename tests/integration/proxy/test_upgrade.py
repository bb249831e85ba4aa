"""SIGUSR2 replaces the supervisor by the installed version, under load."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from proxy.ipc.config import ChildConfig, SupervisorConfig
from proxy.wire.report import Hello
from proxy.wire.snapshot import Generation
from tests.processes.supervised import alive, control, snapshot, supervised
from tests.processes.traffic import SteadyClients, fetch, origin
from tests.support.waiting import wait_until

CHILD = ChildConfig(
    "keeper",
    (sys.executable, "-c", "import time; time.sleep(600)"),
    listen={"SOME_FD": "127.0.0.1:0"},
)
UPGRADED = ChildConfig("control", CHILD.argv, upgrades=True)


async def test_an_upgrade_loses_no_request_and_no_child(tmp_path: Path) -> None:
    async with origin() as behind:
        config = SupervisorConfig(
            listen=("127.0.0.1:0", f"unix:{tmp_path}/front.sock"),
            workers=2,
            state_dir=str(tmp_path),
            announce=True,
            children=(CHILD, UPGRADED),
        )
        with supervised(tmp_path, config) as running:
            address = await running.listening()
            async with control(tmp_path / "feed.sock") as client:
                client.publish(snapshot(3, behind.port))
                await client.all_acked(Generation(1, 3))
            workers = running.workers()
            keeper, control_process = sorted(set(running.children()) - set(workers))
            load = SteadyClients(address)
            load.start(clients=8)
            slow = asyncio.create_task(fetch(address, "/held"))
            await wait_until(lambda: load.good > 100, 10, "load runs")
            running.signal(signal.SIGUSR2)
            new = await wait_until(
                lambda: len(set(running.workers()) - set(workers)) == 2, 20, "new workers"
            )
            behind.release.set()
            assert await slow == (200, "a /held")
            await wait_until(lambda: not set(running.workers()) & set(workers), 20, "old ones gone")
            good = load.good
            await wait_until(lambda: load.good > good + 200, 10, "load continues")
            assert (await fetch(f"unix:{tmp_path}/front.sock"))[0] == 200
            await load.stop()
            print(f"upgraded after {new:.2f} s, {load.good} requests, 0 failed")
            assert load.failures == []
            assert alive(keeper)
            assert keeper in running.children()
            await wait_until(lambda: len(running.children()) == 4, 10, "the other child again")
            assert control_process not in running.children()
            async with control(tmp_path / "feed.sock") as client:
                assert client.of(Hello)[0].generation == Generation(1, 3)
                client.publish(snapshot(4, behind.port))
                await client.all_acked(Generation(1, 4))
                assert len(client.live) == 2
                assert min(client.live) > 2, "numbers of workers are not used again"
            os.kill(keeper, signal.SIGKILL)
            await wait_until(lambda: len(running.children()) == 4, 10, "child started again")
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0


async def test_a_failed_upgrade_changes_nothing(tmp_path: Path) -> None:
    async with origin() as behind:
        config = SupervisorConfig(
            listen=("127.0.0.1:0",), snapshot=snapshot(1, behind.port), announce=True
        )
        with supervised(tmp_path, config) as running:
            address = await running.listening()
            before = running.children()
            (file,) = tmp_path.glob("config-*.json")
            file.write_text('{"listen": 7}')
            running.signal(signal.SIGUSR2)
            await wait_until(lambda: "not upgraded" in running.said, 20, "the failure is logged")
            assert "listen" in running.said
            assert await fetch(address) == (200, "a /")
            assert running.children() == before


async def test_an_upgrade_applies_a_new_number_of_workers(tmp_path: Path) -> None:
    async with origin() as behind:
        config = SupervisorConfig(
            listen=("127.0.0.1:0",), snapshot=snapshot(1, behind.port), announce=True
        )
        with supervised(tmp_path, config) as running:
            address = await running.listening()
            (file,) = tmp_path.glob("config-*.json")
            for count in (3, 1):
                more = msgspec.structs.replace(config, workers=count)
                file.write_bytes(msgspec.json.encode(more))
                before = running.workers()
                running.signal(signal.SIGUSR2)
                await wait_until(
                    lambda count=count, before=before: (
                        len(running.workers()) == count and not set(before) & set(running.workers())
                    ),
                    20,
                    f"{count} workers",
                )
                for _ in range(10):
                    assert await fetch(address) == (200, "a /")
