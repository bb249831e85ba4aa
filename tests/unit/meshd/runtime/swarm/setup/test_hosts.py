"""A Swarm that is started on an engine known by a host name."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from meshd.runtime.base import RuntimeFailure
from meshd.runtime.swarm.setup.hosts import open_hosts, take_steps
from meshd.runtime.swarm.setup.plan import HostAction, HostStep, NodeRole
from tests.support.stub_swarm import StubSwarm


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[StubSwarm, str]]:
    """An engine and its address, with the host `m1`: 10.0.0.1, except for connections."""
    usual = socket.getaddrinfo

    def resolve(host: str, port: int | None, *words: Any, **options: Any) -> Any:
        if host == "m1":
            host = "10.0.0.1" if port is None else "127.0.0.1"
        return usual(host, port, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    swarm = StubSwarm()
    runner = web.AppRunner(swarm.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield swarm, f"tcp://m1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("given", "expected"), [("", "10.0.0.1"), ("10.9.9.9", "10.9.9.9"), ("m1", "10.0.0.1")]
)
async def test_the_engine_advertises_an_ip_address(
    engine: tuple[StubSwarm, str], given: str, expected: str
) -> None:
    swarm, name = engine
    async with open_hosts([name], {name: given} if given else {}) as hosts:
        step = HostStep(name, HostAction.INIT, NodeRole.MANAGER)
        await take_steps(hosts, [step], lambda _: None)
    assert swarm.advertised == expected


async def test_an_address_that_is_not_valid_is_refused_before_any_change(
    engine: tuple[StubSwarm, str],
) -> None:
    swarm, name = engine
    with pytest.raises(RuntimeFailure, match="cannot be resolved"):
        async with open_hosts([name], {name: "name.example.invalid"}):
            pass
    assert swarm.advertised is None
