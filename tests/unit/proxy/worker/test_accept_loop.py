"""The accept loop passes on the sockets of connections, and survives what goes wrong before."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.tcp.poller import Poller
from proxy.transport.connect import RESET
from proxy.worker import accept_loop
from proxy.worker.accept_loop import AcceptLoop
from tests.support.proxy_scene import on_uvloop
from tests.support.waiting import elapse, wait_until


class Place:
    """An accept loop at a free port, with room for `room` connections."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.full = 0
        self.taken: list[tuple[socket.SocketType, str]] = []
        self.poller = Poller(asyncio.get_running_loop())
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.clients: list[socket.socket] = []
        self.loop = self.open()

    def open(self) -> AcceptLoop:
        return AcceptLoop(self.poller, self.sock, self.take, self.has_room, self.on_full)

    def take(self, sock: socket.SocketType, peer: str) -> None:
        self.taken.append((sock, peer))

    def has_room(self) -> bool:
        return len(self.taken) < self.room

    def on_full(self) -> None:
        self.full += 1
        self.loop.close()

    def connect(self, count: int = 1) -> None:
        address = self.sock.getsockname()
        self.clients += [socket.create_connection(address) for _ in range(count)]


@pytest.fixture
def places() -> Iterator[list[Place]]:
    made: list[Place] = []
    yield made
    for place in made:
        place.poller.close()
        for sock in (place.sock, *place.clients, *(taken for taken, _ in place.taken)):
            sock.close()


@on_uvloop
async def test_each_connection_of_a_burst_is_passed_on(places: list[Place]) -> None:
    place = Place()
    places.append(place)
    place.connect(200)
    await wait_until(lambda: len(place.taken) == 200)
    assert {peer for _, peer in place.taken} == {"127.0.0.1"}
    accepted, _ = place.taken[0]
    assert accepted.gettimeout() == 0.0
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    place.clients[0].sendall(b"x")
    await wait_until(lambda: accepted.recv(10, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"x")


@on_uvloop
async def test_other_sockets_have_their_turn_between_two_connections(places: list[Place]) -> None:
    place = Place()
    places.append(place)
    one, other = socket.socketpair()
    one.setblocking(False)
    seen: list[int] = []
    place.poller.watch(one, lambda _: seen.append(len(place.taken)))
    place.connect(50)
    other.send(b"x")
    await wait_until(lambda: len(place.taken) == 50)
    assert seen[0] <= 1, "the event was handled before the queue was empty"
    one.close()
    other.close()


@on_uvloop
async def test_without_room_clients_wait_until_the_loop_is_opened_again(
    places: list[Place],
) -> None:
    place = Place(room=3)
    places.append(place)
    place.connect(5)
    await wait_until(lambda: place.full)
    assert len(place.taken) == 3
    await elapse(0.05, "nothing is accepted meanwhile")
    assert (len(place.taken), place.full) == (3, 1)
    place.room = 10
    place.loop = place.open()
    await wait_until(lambda: len(place.taken) == 5)


@on_uvloop
async def test_a_closed_loop_leaves_connections_to_the_next_one(places: list[Place]) -> None:
    """The socket is open in another process too, so that closing it would end nothing."""
    place = Place()
    places.append(place)
    copy = place.sock.dup()
    place.loop.close()
    place.sock.close()
    place.sock = copy
    place.connect(2)
    await elapse(0.05, "nothing is accepted")
    assert not place.taken
    place.loop = place.open()
    await wait_until(lambda: len(place.taken) == 2)


@on_uvloop
async def test_clients_that_reset_before_are_not_in_the_way(places: list[Place]) -> None:
    place = Place()
    places.append(place)
    for _ in range(20):
        gone = socket.create_connection(place.sock.getsockname())
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        gone.close()
    place.connect()
    port = place.clients[0].getsockname()[1]

    def ports() -> list[int]:
        found = []
        for sock, _ in place.taken:
            try:
                found.append(sock.getpeername()[1])
            except OSError:
                continue  # one of those that have gone
        return found

    await wait_until(lambda: port in ports())
    assert place.full == 0


@pytest.mark.parametrize(
    ("number", "full"), [(errno.EMFILE, 1), (errno.ENFILE, 1), (errno.ECONNABORTED, 0)]
)
def test_an_error_of_accept_does_not_end_the_loop(
    number: int, full: int, places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor it pauses; else the kernel would report the client for ever."""
    accept, failures = accept_loop.accept, [number]

    def fail(*arguments: Any) -> tuple[socket.SocketType, str]:
        if failures:
            raise OSError(failures.pop(), "accept")
        return accept(*arguments)

    monkeypatch.setattr(accept_loop, "accept", fail)

    @on_uvloop
    async def run() -> None:
        place = Place()
        places.append(place)
        place.connect()
        await wait_until(lambda: place.full or place.taken)
        assert place.full == full
        if full:
            place.loop = place.open()
        await wait_until(lambda: len(place.taken) == 1)

    run()
