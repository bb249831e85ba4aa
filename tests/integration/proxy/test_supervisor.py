"""The supervisor and its workers as real processes, controlled over the feed socket."""

import asyncio
import itertools
import os
import signal
import socket
import statistics
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.ipc.config import ChildConfig, SupervisorConfig
from proxy.supervisor import snapshot_file
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    Hello,
    ListenFailed,
    Listening,
    Report,
    Resync,
    SnapshotRefused,
    Workers,
)
from proxy.wire.snapshot import Generation, Listener, Snapshot
from tests.processes.supervised import alive, control, snapshot, supervised
from tests.processes.traffic import fetch, origin
from tests.support.waiting import stays, wait_until


def config(state: Path, **more: object) -> SupervisorConfig:
    return SupervisorConfig(
        listen=("127.0.0.1:0",), workers=2, state_dir=str(state), announce=True, **more
    )  # type: ignore[arg-type]


def feed(state: Path) -> Path:
    return state / "feed.sock"


def stored(state: Path) -> Generation | None:
    """Return the generation on disk. A thread writes it after the workers have acked."""
    found = snapshot_file.load(state / "snapshot.bin")
    return found and found.generation


async def test_a_publish_is_acked_by_every_worker(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        address = await running.listening()
        async with control(feed(tmp_path)) as client:
            assert client.of(Hello)[0].generation == Generation()
            assert client.of(Listening)[0].bound == {"127.0.0.1:0": address}
            first = snapshot(1, 9)
            client.publish(first)
            took = await client.all_acked(first.generation)
            client.publish(snapshot(2, 9, 10), first)
            await client.all_acked(Generation(1, 2))
            print(f"publish to last ack: {took * 1000:.1f} ms")
    assert feed(tmp_path).parent.stat().st_mode & 0o077 == 0


async def test_a_later_control_process_learns_the_current_generation(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            client.publish(snapshot(7, 9, epoch=3))
            await client.all_acked(Generation(3, 7))
        async with control(feed(tmp_path)) as later:
            await wait_until(lambda: len(later.of(Ack)) == 2, 5, "acks repeated")
            assert later.of(Hello)[0] == Hello(SUPERVISOR, Generation(3, 7))
            assert len(later.live) == 2
            assert {ack.generation for ack in later.of(Ack)} == {Generation(3, 7)}


@pytest.mark.parametrize("stale", [Generation(1, 4), Generation(1, 5), Generation(0, 99)])
async def test_a_stale_generation_is_refused(tmp_path: Path, stale: Generation) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            client.publish(snapshot(5, 9))
            await client.all_acked(Generation(1, 5))
            client.publish(snapshot(stale.number, 10, epoch=stale.epoch))
            await wait_until(lambda: len(client.of(Hello)) == 2, 5, "answered")
            assert client.of(Hello)[1].generation == Generation(1, 5)
            client.publish(snapshot(1, 10, epoch=2))
            await client.all_acked(Generation(2, 1))
            assert {ack.generation for ack in client.of(Ack)} <= {
                Generation(),
                Generation(1, 5),
                Generation(2, 1),
            }


async def test_an_update_with_an_unknown_base_causes_a_resync(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            unknown = snapshot(1, 9)
            client.publish(snapshot(2, 9), snapshot(2, 9))
            await wait_until(lambda: bool(client.of(Resync)), 5, "resync asked for")
            client.publish(snapshot(2, 9), snapshot(2, 9), deltas=False)
            await wait_until(lambda: len(client.of(Resync)) == 2, 5, "again")
            client.publish(unknown)
            await client.all_acked(Generation(1, 1))


async def test_an_invalid_snapshot_is_refused_and_the_old_one_serves(
    tmp_path: Path,
) -> None:
    def poison(number: int, port: int) -> Snapshot:
        return msgspec.structs.replace(snapshot(number, port), trusted_proxies=("no network",))

    async with origin("one") as one, origin("two") as two:
        with supervised(tmp_path, config(tmp_path)) as running:
            address = await running.listening()
            pids = running.workers()
            async with control(feed(tmp_path)) as client:
                first, bad = snapshot(1, one.port), poison(2, two.port)
                client.publish(first)
                await client.all_acked(first.generation)
                client.publish(bad, first)
                await wait_until(lambda: len(client.of(SnapshotRefused)) == 2, 5, "refused by both")
                refused = client.of(SnapshotRefused)[0]
                assert refused.generation == bad.generation
                assert "no network" in refused.reason
                assert await fetch(address) == (200, "one /")

                # A worker that starts meanwhile gets the generation that the others have.
                os.kill(pids[0], signal.SIGKILL)
                await wait_until(lambda: len(client.of(SnapshotRefused)) == 3, 10, "refused again")
                await wait_until(
                    lambda: max(client.acked(first.generation)) == 3, 5, "old one acked"
                )
                # Longer than a worker may take to ack.
                await stays(lambda: running.workers()[0] == pids[1], 2.5, "the second worker runs")
                assert len(running.workers()) == 2
                assert await fetch(address) == (200, "one /")

                good = snapshot(3, two.port)
                client.publish(good, bad)
                await client.all_acked(good.generation)
                assert await fetch(address) == (200, "two /")
                await wait_until(lambda: stored(tmp_path) == good.generation, 5, "stored")
                client.publish(poison(4, one.port), good)
                await wait_until(lambda: len(client.of(SnapshotRefused)) == 5, 5, "refused again")
            running.signal(signal.SIGKILL)
            await running.ended()
        # What was stored is what could be used.
        with supervised(tmp_path, config(tmp_path)) as again:
            assert await fetch(await again.listening()) == (200, "two /")


async def test_the_last_snapshot_survives_the_supervisor(tmp_path: Path) -> None:
    async with origin("kept") as behind:
        with supervised(tmp_path, config(tmp_path)) as running:
            await running.listening()
            async with control(feed(tmp_path)) as client:
                client.publish(snapshot(4, behind.port))
                await client.all_acked(Generation(1, 4))
                await wait_until(lambda: stored(tmp_path) == Generation(1, 4), 5, "stored")
        with supervised(tmp_path, config(tmp_path)) as again:
            await again.listening()
            async with control(feed(tmp_path)) as client:
                assert client.of(Hello)[0].generation == Generation(1, 4)
                await client.all_acked(Generation(1, 4))


async def test_a_killed_supervisor_takes_workers_and_children_with_it(tmp_path: Path) -> None:
    child = ChildConfig("idle", (sys.executable, "-c", "import time; time.sleep(600)"))
    with supervised(tmp_path, config(tmp_path, children=(child,))) as running:
        await running.listening()
        pids = running.children()
        assert len(pids) == 3
        running.signal(signal.SIGKILL)
        await running.ended()
        await wait_until(lambda: not any(map(alive, pids)), 5, "all gone")


async def test_a_stuck_worker_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            before = client.live
            stuck = running.workers()[0]
            os.kill(stuck, signal.SIGSTOP)
            client.publish(snapshot(1, 9))
            took = await wait_until(lambda: not alive(stuck), 10, "stuck worker ended")
            await client.all_acked(Generation(1, 1))
            await wait_until(lambda: len(client.live) == 2, 5, "replaced")
            assert client.live != before
            print(f"stuck worker ended after {took:.2f} s (2 s asked for)")


async def test_reports_arrive_each_second(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            await wait_until(lambda: len(client.of(Report)) >= 6, 15, "six reports")
            for worker in client.live:
                mine = [report for report in client.of(Report) if report.worker == worker]
                assert all(a.end == b.start for a, b in itertools.pairwise(mine))
            ends = sorted(report.end for report in client.of(Report) if report.worker == 1)
            assert all(later - earlier > 0.5 for earlier, later in itertools.pairwise(ends))
            late = statistics.median(report.end % 1 for report in client.of(Report))
            print(f"reports {late * 1000:.0f} ms after the second (bound 100 ms)")
            assert late < 0.1 * 5


async def test_listeners_follow_the_snapshot(tmp_path: Path, free_port: int) -> None:
    extra = Listener(f"127.0.0.1:{free_port}", "mesh", caller="shop/web")
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken_address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    with supervised(tmp_path, config(tmp_path)) as running:
        await running.listening()
        async with control(feed(tmp_path)) as client:
            old = snapshot(1, 9)
            listeners = (extra, Listener(taken_address))
            new = msgspec.structs.replace(snapshot(2, 9), listeners=listeners)
            client.publish(old)
            client.publish(new, old)
            await wait_until(lambda: extra.address in client.bound, 5, "opened")
            await wait_until(lambda: bool(client.of(ListenFailed)), 5, "the failure is reported")
            assert client.of(ListenFailed)[0].address == taken_address
            await wait_until(lambda: _accepts(free_port), 5, "accepted")
            taken.close()
            await wait_until(lambda: taken_address in client.bound, 5, "opened once it is free")
            client.publish(snapshot(3, 9), new)
            await wait_until(lambda: extra.address not in client.bound, 5, "closed")
            await wait_until(lambda: not _accepts(free_port), 5, "refused")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_children_are_restarted_and_stopped_in_order(tmp_path: Path) -> None:
    script = (
        "import os,signal,sys,time\n"
        "def end(*_):\n"
        "    open('order','a').write(sys.argv[1]+'\\n'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open('pid-'+sys.argv[1],'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    script = f"import os; os.chdir({str(tmp_path)!r})\n" + script
    children = tuple(
        ChildConfig(name, (sys.executable, "-c", script, name)) for name in ("first", "second")
    )
    with supervised(tmp_path, config(tmp_path, children=children)) as running:
        await running.listening()
        pid_file = tmp_path / "pid-second"
        await wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", 10, "child runs")
        before = pid_file.read_text()
        os.kill(int(before), signal.SIGKILL)
        took = await wait_until(
            lambda: pid_file.read_text() not in ("", before), 10, "started again"
        )
        print(f"child started again after {took:.2f} s")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert (tmp_path / "order").read_text().split() == ["second", "first"]


async def test_a_child_that_starts_is_told_to_reload_later(tmp_path: Path) -> None:
    script = (
        "import os,pathlib,signal,sys,time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'starting').touch()\n"
        "while not (folder / 'imported').exists(): time.sleep(0.01)\n"
        "signal.signal(signal.SIGHUP, lambda *_: (folder / 'reloaded').touch())\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])\n"
        "time.sleep(600)\n"
    )
    child = ChildConfig("reader", (sys.executable, "-c", script), reload=True)
    with supervised(tmp_path, config(tmp_path, children=(child,))) as running:
        await running.listening()
        await wait_until((tmp_path / "starting").exists, 10, "child starts")
        running.signal(signal.SIGHUP)
        await wait_until(lambda: "reloading" in running.said, 10, "reload")
        (tmp_path / "imported").touch()
        await wait_until((tmp_path / "reloaded").exists, 10, "child reloads")
        assert running.said.count("child reader started") == 1
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0


def stubborn(ready: Path) -> ChildConfig:
    """A child that ignores SIGTERM once the file exists."""
    code = (
        "import signal,sys,time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); "
        "time.sleep(600)"
    )
    return ChildConfig("stubborn", (sys.executable, "-c", code, str(ready)), stop_seconds=60)


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    ready = tmp_path / "up"
    with supervised(tmp_path, config(tmp_path, children=(stubborn(ready),))) as running:
        await running.listening()
        await wait_until(ready.exists, 5, "the child ignores SIGTERM")
        running.signal(signal.SIGTERM)
        await wait_until(lambda: not running.workers(), 5, "workers ended")
        running.signal(signal.SIGTERM)
        assert await running.ended(15) == 1


async def test_the_feed_says_that_the_supervisor_ends(tmp_path: Path) -> None:
    ready = tmp_path / "up"
    with supervised(tmp_path, config(tmp_path, children=(stubborn(ready),))) as running:
        await running.listening()
        await wait_until(ready.exists, 5, "the child ignores SIGTERM")
        async with control(feed(tmp_path)) as early:
            assert not early.of(Workers)[-1].ending
            running.signal(signal.SIGTERM)
            await wait_until(lambda: early.of(Workers)[-1].ending, 5, "a message about the end")
        async with control(feed(tmp_path)) as late:
            await wait_until(lambda: bool(late.of(Workers)), 5, "a greeting")
            assert late.of(Workers)[0].ending
        running.signal(signal.SIGTERM)
        assert await running.ended(15) == 1


async def test_the_port_of_another_supervisor_is_in_use(tmp_path: Path) -> None:
    with supervised(tmp_path, config(tmp_path)) as running:
        address = await running.listening()
        second = SupervisorConfig(listen=(address,))
        with supervised(tmp_path, second) as refused:
            assert await refused.ended() == 2
            assert f"cannot listen on {address}: Address already in use" in refused.said
        same_state = SupervisorConfig(listen=("127.0.0.1:0",), state_dir=str(tmp_path))
        with supervised(tmp_path, same_state) as refused:
            assert await refused.ended() == 2
            assert "feed.sock: Address already in use" in refused.said
        assert running.process.poll() is None


async def test_workers_that_cannot_start_end_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "uvloop.py").write_text("raise ImportError('broken on purpose')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with supervised(tmp_path, config(tmp_path)) as running:
        assert await running.ended() == 1
        assert "the workers do not start" in running.said
