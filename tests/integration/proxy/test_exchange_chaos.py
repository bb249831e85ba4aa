"""Random misbehavior of clients and origins leaves no connection and no count behind."""

import asyncio
import random
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest

from proxy.wire.snapshot import Balance, Ejection, Limits, Timeouts
from tests.support.proxy_scene import (
    OK,
    Client,
    Scene,
    Visit,
    get,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def rude_origin(dice: random.Random) -> Any:
    async def script(visit: Visit) -> None:
        while True:
            await visit.head()
            match dice.randrange(12):
                case 0:
                    return
                case 1:
                    reset(visit.writer)
                    return
                case 2:
                    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                    return
                case 3:
                    await visit.send(CHUNKED + b"4\r\nhalf\r\n")
                    reset(visit.writer)
                    return
                case 4:
                    await visit.send(b"garbage\r\n\r\n")
                    return
                case 5:
                    await elapse(0.6, "longer than the timeout")
                    await visit.send(OK)
                case 6:
                    await visit.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                case 7:
                    await visit.send(CHUNKED + b"2710\r\n" + b"x" * 10_000 + b"\r\n0\r\n\r\n")
                case 8:
                    await visit.send(OK + OK)
                case 9:
                    await visit.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
                    return
                case _:
                    await visit.send(OK)

    return script


async def rude_client(s: Scene, dice: random.Random) -> None:
    client: Client = await s.client()
    try:
        match dice.randrange(8):
            case 0:
                await client.send(get()[: dice.randrange(30)])
            case 1:
                await client.send(get() * dice.randrange(1, 6))
                await elapse(dice.random() * 0.2, "the client leaves at a random time")
            case 2:
                await client.send(post(b"x" * 1000)[: dice.randrange(50, 1000)])
                await elapse(dice.random() * 0.1, "the client leaves at a random time")
            case 3:
                await client.send(get() * 2)
                client.writer.write_eof()
                await asyncio.wait_for(client.reader.read(), 30)
            case 4:
                await client.send(b"\x16\x03\x01 hello\r\n\r\n")
                await asyncio.wait_for(client.reader.read(), 30)
            case 5:
                await client.send(get())
                reset(client.writer)
                return
            case 6:
                await client.send(get("/", "Connection: Upgrade", "Upgrade: websocket") + b"data")
                await asyncio.wait_for(client.reader.read(100), 30)
            case _:
                await client.send(post(b"hello", "Connection: close"))
                await asyncio.wait_for(client.reader.read(), 30)
    except (ConnectionError, TimeoutError):
        pass
    client.close()


@pytest.mark.parametrize("seed", range(4))
@on_uvloop
async def test_chaos_leaves_no_connection_and_no_count(seed: int) -> None:
    dice = random.Random(seed)
    problems: list[dict[str, Any]] = []
    async with scene() as s:
        s.loop.set_exception_handler(lambda _, context: problems.append(context))
        origins = [await s.origin(rude_origin(dice)) for _ in range(3)]
        s.install(
            service(
                *origins,
                balance=Balance("least-request"),
                ejection=Ejection(base=0.1),
                timeouts=Timeouts(first_byte=0.4, idle=0.4),
                limits=Limits(endpoint_in_flight=8, pending=20, pending_timeout=0.3),
            )
        )
        for _ in range(6):
            await asyncio.gather(*(rude_client(s, dice) for _ in range(25)))
        await wait_until(lambda: not s.plane.active(), 10)
        await wait_until(lambda: not s.plane.clients, 10)
        state = s.plane.services["shop"]
        assert state.in_flight == 0
        assert not state.waiting
        assert (state.counters.parked, state.counters.queued) == (0, 0)
        for endpoint in state.endpoints.values():
            assert endpoint.in_flight == 0
            await wait_until(lambda e=endpoint: e.connections == len(e.idle))
        (report,) = s.plane.report(0.0, 1.0).services
        assert report.arrivals == sum(report.codes.values())
        assert not problems, problems
