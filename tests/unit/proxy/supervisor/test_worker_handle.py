"""Messages to a worker, when it is killed, and how soon it is replaced."""

from typing import Any

import pytest

from proxy.ipc.config import ChildConfig
from proxy.ipc.sockets import ListeningSockets
from proxy.supervisor.child_processes import next_backoff
from proxy.supervisor.worker_handle import WorkerHandle, kill_reason, restart_delay
from proxy.wire import codec
from proxy.wire.report import (
    Accepting,
    Ack,
    Drain,
    ListenOn,
    Publish,
    PublishDelta,
    ReopenLog,
    StopListening,
)
from proxy.wire.snapshot import Generation, Listener, Service, Snapshot


class Socket:
    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Wire:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any, descriptor: int = -1) -> None:
        self.sent.append((message, descriptor) if descriptor >= 0 else message)

    def taken(self) -> list[Any]:
        sent, self.sent = self.sent, []
        return sent


def make_handle(slot: int = 1) -> tuple[WorkerHandle, Wire]:
    wire = Wire()
    made = WorkerHandle(7, slot, process=None, channel=wire, started_at=0.0, heard_at=0.0)  # type: ignore[arg-type]
    return made, wire


def snapshot(number: int, *services: Service) -> Snapshot:
    return Snapshot(Generation(1, number), services)


WEB = Service("shop/web", "f1")
PUBLIC = Listener("127.0.0.1:80")
OPEN = {PUBLIC.address: (PUBLIC, ListeningSockets("127.0.0.1:80", (Socket(30), Socket(31))))}  # type: ignore[arg-type]


def test_one_snapshot_is_sent_at_a_time_then_the_difference_to_the_newest() -> None:
    made, wire = make_handle()
    made.sync(snapshot(1, WEB), {}, 0.0)
    made.sync(snapshot(2, WEB), {}, 0.1)
    made.sync(snapshot(3, WEB), {}, 0.2)
    (first,) = wire.taken()
    assert first.update.generation == Generation(1, 1)
    assert first.update.services == (WEB,)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(3, WEB), {}, 0.3)
    (second,) = wire.taken()
    assert isinstance(second, PublishDelta)
    assert (second.delta.base, second.generation) == (Generation(1, 1), Generation(1, 3))
    assert second.delta.services == ()


def test_a_worker_that_refuses_a_snapshot_gets_the_next_one() -> None:
    made, wire = make_handle()
    made.sync(snapshot(1, WEB), {}, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(2, WEB), OPEN, 1.0)
    wire.taken()
    made.on_refused(Generation(1, 2))
    assert kill_reason(made, 2.9, 2.0, 5.0) is None
    made.sync(snapshot(2, WEB), OPEN, 3.0, snapshot(1, WEB))
    assert wire.taken() == [(ListenOn(PUBLIC), 31)]
    made.sync(snapshot(3, WEB), OPEN, 4.0, snapshot(1, WEB))
    (third,) = wire.taken()
    assert isinstance(third, PublishDelta)
    assert (third.delta.base, third.generation) == (Generation(1, 1), Generation(1, 3))
    assert third.delta.services == ()


def test_a_worker_of_an_earlier_version_gets_no_delta() -> None:
    made, wire = make_handle()
    made.protocol = 2
    made.sync(snapshot(1, WEB), {}, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    wire.taken()
    made.sync(snapshot(2, WEB), {}, 0.0)
    (second,) = wire.taken()
    assert second.update.unchanged == ((WEB.name, WEB.fingerprint),)


def test_a_new_worker_that_refuses_gets_the_snapshot_of_the_others() -> None:
    made, wire = make_handle()
    made.sync(snapshot(2, WEB), OPEN, 0.0)
    wire.taken()
    made.on_refused(Generation(1, 2))
    made.sync(snapshot(2, WEB), OPEN, 0.0, None)
    made.sync(snapshot(2, WEB), OPEN, 0.0, snapshot(2, WEB))
    assert wire.taken() == []
    made.sync(snapshot(2, WEB), OPEN, 0.0, snapshot(1, WEB))
    (old,) = wire.taken()
    assert old.update.generation == Generation(1, 1)
    assert old.update.services == (WEB,)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(2, WEB), OPEN, 0.0, snapshot(1, WEB))
    assert wire.taken() == [(ListenOn(PUBLIC), 31)]


def test_a_resync_sends_everything() -> None:
    made, wire = make_handle()
    made.sync(snapshot(1, WEB), {}, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(2, WEB), {}, 0.0)
    made.on_resync()
    wire.taken()
    made.sync(snapshot(2, WEB), {}, 0.0)
    (again,) = wire.taken()
    assert isinstance(again, Publish)
    assert again.update.services == (WEB,)


def test_an_old_ack_does_not_answer_a_new_snapshot() -> None:
    made, _ = make_handle()
    made.sync(snapshot(1), {}, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(2), {}, 1.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    assert made.waiting_since == 1.0


def test_listeners_are_sent_after_the_ack_with_the_socket_of_the_slot() -> None:
    made, wire = make_handle(slot=1)
    made.sync(snapshot(1), OPEN, 0.0)
    wire.taken()
    made.sync(snapshot(1), OPEN, 0.0)
    assert wire.taken() == []
    made.on_ack(Ack(7, Generation(1, 1)))
    assert not made.is_serving(OPEN)
    made.sync(snapshot(1), OPEN, 0.0)
    made.sync(snapshot(1), OPEN, 0.0)
    assert wire.taken() == [(ListenOn(PUBLIC), 31)]
    made.on_accepting(Accepting(7, (PUBLIC.address,)))
    assert made.is_serving(OPEN)


def test_changed_listeners_are_sent_again_and_removed_ones_closed() -> None:
    made, wire = make_handle()
    made.sync(snapshot(1), OPEN, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.sync(snapshot(1), OPEN, 0.0)
    wire.taken()
    mesh = Listener(PUBLIC.address, "mesh", caller="shop/web")
    made.sync(snapshot(1), {PUBLIC.address: (mesh, OPEN[PUBLIC.address][1])}, 0.0)
    assert wire.taken() == [(ListenOn(mesh), 31)]
    made.sync(snapshot(1), {}, 0.0)
    assert wire.taken() == [StopListening(PUBLIC.address)]


def test_a_draining_worker_still_gets_snapshots_but_no_listeners() -> None:
    made, wire = make_handle()
    made.sync(snapshot(1), {}, 0.0)
    made.on_ack(Ack(7, Generation(1, 1)))
    made.drain(until=9.0, tunnels=False)
    made.drain(until=5.0, tunnels=True)
    made.sync(snapshot(2), OPEN, 0.0)
    made.on_ack(Ack(7, Generation(1, 2)))
    made.sync(snapshot(2), OPEN, 0.0)
    _, drain, update = wire.taken()
    assert drain == Drain(tunnels=False)
    assert update.generation == Generation(1, 2)
    assert made.draining_until == 5.0


def test_a_shutdown_takes_the_time_for_tunnels_away_again() -> None:
    made, wire = make_handle()
    made.drain(until=3600.0, tunnels=True)
    made.drain(until=3000.0, tunnels=True)
    made.drain(until=30.0, tunnels=False)
    made.drain(until=20.0, tunnels=False)
    made.reopen_log()
    assert wire.taken() == [Drain(), Drain(tunnels=False), ReopenLog()]
    assert made.draining_until == 20.0


def test_a_worker_of_an_earlier_version_gets_only_messages_that_it_knows() -> None:
    made, wire = make_handle()
    made.protocol = 0
    made.drain(until=3600.0, tunnels=True)
    made.drain(until=30.0, tunnels=False)
    made.reopen_log()
    assert wire.taken() == [Drain(), Drain()]
    assert made.draining_until == 30.0
    assert b"tunnels" not in codec.encode(Drain())


@pytest.mark.parametrize(
    ("change", "now", "expected"),
    [
        ({}, 9.0, None),
        ({}, 10.5, "no message for 10 s"),
        ({"waiting_since": 8.0, "last_ack": Ack(7, Generation())}, 9.9, None),
        (
            {"waiting_since": 7.0, "last_ack": Ack(7, Generation())},
            9.1,
            "no ack of a snapshot within 2 s",
        ),
        ({"waiting_since": 0.0}, 9.9, None),
        ({"draining_until": 9.0}, 8.9, None),
        ({"draining_until": 9.0}, 9.1, "not finished within the drain time"),
    ],
)
def test_kill_reason(change: dict[str, Any], now: float, expected: str | None) -> None:
    made, _ = make_handle()
    for name, value in change.items():
        setattr(made, name, value)
    assert kill_reason(made, now, ack_seconds=2.0, silence_seconds=10.0) == expected


def test_a_worker_that_dies_is_replaced_at_once_and_a_crash_loop_slows_down() -> None:
    assert [restart_delay(n) for n in range(9)] == [0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


def test_restarts_of_children_back_off_until_they_run_stably() -> None:
    config = ChildConfig("c", ("true",), backoff_first=0.5, backoff_longest=3.0)
    waits = [0.0]
    for _ in range(5):
        waits.append(next_backoff(config, waits[-1], lifetime=0.1))
    assert waits[1:] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert next_backoff(config, 3.0, lifetime=3.5) == 0.5
