"""A node that does not answer: all its endpoints leave rotation at once, and what is under way
there goes elsewhere.

A listener whose queue is full lets packets unanswered that open a connection, as a machine does
that is gone.
"""

import socket
from contextlib import closing
from typing import Any

import msgspec
import pytest

from proxy.transport import silence
from proxy.transport.silence import is_silence, notice_silence
from proxy.wire.snapshot import Balance, Endpoint, Parking, Service
from tests.support.proxy_scene import (
    Origin,
    Visit,
    answers,
    get,
    named_ok,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.silent_ports import silent_ports
from tests.support.waiting import wait_until

Ejection = tuple[str, str]


def on_node(node: str, *ports: int, start: int = 0) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(id=f"{node}-{number}", host="127.0.0.1", port=port, node=node)
        for number, port in enumerate(ports, start)
    )


def shop(*endpoints: Endpoint, **config: object) -> Service:
    made = service(balance=Balance("round-robin"), parking=Parking(on_refusal=True), **config)
    return msgspec.structs.replace(made, endpoints=endpoints)


def reports(ejected: list[Ejection]) -> dict[str, Any]:
    """Arguments of a data plane that appends its ejections."""
    return {"on_ejected": lambda _, id, __, cause: ejected.append((id, cause))}


async def hang(visit: Visit) -> None:
    await visit.head()
    await visit.wait_closed()


@pytest.mark.parametrize("parking", [Parking(on_refusal=True), Parking(timeout=0.0)])
@on_uvloop
async def test_all_endpoints_of_a_lost_node_leave_rotation(parking: Parking) -> None:
    """Also the one that no request was sent to, and the requests that wait at another one."""
    ejected: list[Ejection] = []
    async with scene(reports(ejected)) as s:
        hanging, good = await s.origin(hang), await s.origin(answers(named_ok(b"good")))
        s.install(shop(*on_node("w2", hanging.port)))
        waiting = await s.ask(get())
        await wait_until(lambda: len(hanging.visits) == 1)
        with silent_ports(2) as ports:
            lost = on_node("w2", hanging.port, *ports)
            made = shop(*lost, *on_node("w1", good.port))
            s.install(msgspec.structs.replace(made, parking=parking))
            clients = [await s.ask(get()) for _ in range(8)]
            for client in (waiting, *clients[:3]):
                assert (await client.response())[2] == b"good"
            await wait_until(lambda: len(ejected) == 3)
        assert {id for id, _ in ejected} == {"w2-0", "w2-1", "w2-2"}
        assert ejected[0][1] == "its machine does not answer"
        assert ejected[-1][1] == "node w2 does not answer: 2 of 3 replicas are silent"


@on_uvloop
async def test_a_node_that_answers_again_gets_requests() -> None:
    async with scene() as s:
        with silent_ports(1) as (port,):
            s.install(shop(*on_node("w1", port)))
            client = await s.ask(post(b"hello"))
            (state,) = s.plane.services["shop"].endpoints.values()
            await wait_until(lambda: state.unreachable, 10, "it is found silent")
        back = await Origin(answers(named_ok(b"back"))).start(port)
        s.origins.append(back)
        assert (await client.response())[2] == b"back"
        assert not state.unreachable


@on_uvloop
async def test_a_node_with_an_endpoint_that_answers_is_not_lost() -> None:
    ejected: list[Ejection] = []
    async with scene(reports(ejected)) as s:
        good = await s.origin(answers(named_ok(b"good")))
        with silent_ports(1) as (port,):
            s.install(shop(*on_node("w1", good.port, port)))
            client = await s.ask(get())
            other = await s.ask(get())
            for each in (client, other):
                assert (await each.response())[2] == b"good"
        assert ejected == [("w1-1", "its machine does not answer")]


def test_the_kernel_notices_silence() -> None:
    with closing(socket.socket()) as sock:
        notice_silence(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000
    assert is_silence(TimeoutError(110, "timed out"))
    assert not is_silence(ConnectionRefusedError(111, "refused"))
    assert not is_silence(None)
    assert silence.SILENCE == 1.0
