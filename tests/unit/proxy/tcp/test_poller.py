"""The poller reports what happens to sockets, and nothing of sockets that are gone."""

import asyncio
import socket

from proxy.tcp.poller import LAST, READABLE, RESET, WRITABLE, Poller
from tests.support.proxy_scene import on_uvloop
from tests.support.waiting import wait_until


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.setblocking(False)
    return one, other


@on_uvloop
async def test_the_present_state_comes_first_then_each_change() -> None:
    poller = Poller(asyncio.get_running_loop())
    one, other = pair()
    seen: list[int] = []
    poller.watch(one, seen.append, writable=True)
    await wait_until(lambda: seen)
    assert seen[0] & WRITABLE
    assert not seen[0] & READABLE
    other.send(b"x")
    await wait_until(lambda: len(seen) > 1)
    assert seen[1] & READABLE
    assert not seen[1] & LAST
    other.close()
    await wait_until(lambda: len(seen) > 2)
    assert seen[-1] & LAST
    poller.close()
    one.close()


@on_uvloop
async def test_a_reset_is_reported_also_behind_bytes_that_were_not_read() -> None:
    poller = Poller(asyncio.get_running_loop())
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    accepted, _ = listening.accept()
    accepted.setblocking(False)
    seen: list[int] = []
    poller.watch(accepted, seen.append)
    client.send(b"hello")
    await wait_until(lambda: any(events & READABLE for events in seen))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    await wait_until(lambda: seen[-1] & RESET)
    poller.close()
    accepted.close()
    listening.close()


@on_uvloop
async def test_events_of_a_closed_socket_do_not_reach_the_next_one_with_its_number() -> None:
    poller = Poller(asyncio.get_running_loop())
    pairs = [pair() for _ in range(2)]
    seen: list[str] = []
    replacement: list[socket.socket] = []

    def replace(_: int) -> None:
        # The first of a batch closes the other one, whose event is in the same batch.
        if replacement:
            return
        for one, other in pairs:
            poller.forget(one)
            one.close()
            other.close()
        for _ in pairs:
            one = socket.socket()
            one.setblocking(False)
            replacement.append(one)
            poller.watch(one, lambda events: seen.append(f"{events:x}"), writable=True)
        numbers.update(one.fileno() for one in replacement)

    numbers: set[int] = set()
    old = {one.fileno() for one, _ in pairs}
    for one, _ in pairs:
        poller.watch(one, replace, writable=True)
    await wait_until(lambda: seen)
    assert numbers & old
    # A socket that is not connected reports EPOLLHUP; the closed pairs would have been writable.
    assert all(int(events, 16) & 0x10 for events in seen)
    poller.close()
    for one in replacement:
        one.close()
