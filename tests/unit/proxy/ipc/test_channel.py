"""The socket between supervisor and worker: messages, and descriptors with them."""

import asyncio
import os
import socket

from proxy.ipc.channel import Channel
from proxy.wire.report import Drain, ListenOn, Message, StopListening, Wake
from proxy.wire.snapshot import Listener

Got = list[tuple[Message, int]]


class End:
    def __init__(self, sock: socket.socket) -> None:
        self.got: Got = []
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self.channel = Channel(sock, self._take, self.ended.set)
        self.channel.start()

    def _take(self, message: Message, descriptor: int) -> None:
        self.got.append((message, descriptor))
        self.arrived.set()

    async def have(self, count: int) -> Got:
        while len(self.got) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)
        return self.got


def pair() -> tuple[End, End]:
    a, b = socket.socketpair()
    return End(a), End(b)


async def test_descriptors_stay_with_their_messages_behind_a_full_socket() -> None:
    ours, theirs = pair()
    pipes = [os.pipe() for _ in range(3)]
    large = Wake(1, "x" * 2_000_000)
    for number, (_, writing) in enumerate(pipes):
        ours.channel.send(large)
        ours.channel.send(ListenOn(Listener(f"unix:{number}")), writing)
        ours.channel.send(StopListening(f"unix:{number}"))
        os.close(writing)
    assert ours.channel.pending > 1_000_000
    got = await theirs.have(9)
    assert [message for message, _ in got] == [
        each
        for number in range(3)
        for each in (large, ListenOn(Listener(f"unix:{number}")), StopListening(f"unix:{number}"))
    ]
    assert ours.channel.pending == 0
    for number, (reading, _) in enumerate(pipes):
        os.write(got[3 * number + 1][1], b"%d" % number)
        os.close(got[3 * number + 1][1])
        assert os.read(reading, 9) == b"%d" % number
        os.close(reading)
    ours.channel.close()
    await asyncio.wait_for(theirs.ended.wait(), 5)


async def test_what_was_sent_before_the_end_is_read() -> None:
    ours, theirs = pair()
    ours.channel.send(Drain())
    ours.channel.close()
    await asyncio.wait_for(theirs.ended.wait(), 5)
    assert theirs.got == [(Drain(), -1)]
    theirs.channel.send(Drain())
    assert theirs.channel.pending == 0


async def test_invalid_bytes_end_the_channel() -> None:
    a, b = socket.socketpair()
    end = End(b)
    a.send(b"\xff\xff\xff\xff")
    await asyncio.wait_for(end.ended.wait(), 5)
    a.close()


async def test_closing_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = pair()
    reading, writing = os.pipe()
    ours.channel.send(Wake(1, "x" * 2_000_000))
    ours.channel.send(ListenOn(Listener("unix:a")), writing)
    ours.channel.close()
    theirs.channel.close()
    os.close(reading)
    os.close(writing)
    assert len(os.listdir("/proc/self/fd")) == before
