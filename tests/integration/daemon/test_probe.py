"""Probes against real listeners: which answers are good, and how soon a change is known."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from meshd.discovery.probe import ProbeOpening, Prober, ProbeTarget, probe
from meshd.model.replica import REFUSED, ProbeResult
from meshd.spec.model import HealthCheck, Mesh
from proxy.wire.snapshot import UpstreamTls
from tests.fakes import virtual
from tests.support.certificate_authority import Authority, server_context
from tests.support.tcp_server import TcpServer, start_server
from tests.support.waiting import wait_until

HTTP = HealthCheck(path="/healthz", interval=0.2, timeout=5)


@pytest.fixture
async def answering() -> AsyncIterator[Callable[[bytes | None], "asyncio.Future[int]"]]:
    """Return a function that starts a listener which answers every connection with the same bytes
    (None: never)."""
    servers: list[TcpServer] = []

    async def start(answer: bytes | None) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()
            writer.close()

        servers.append(await start_server(serve))
        return servers[-1].port

    yield lambda answer: asyncio.ensure_future(start(answer))
    for server in servers:
        await server.close()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.0 302 Found\r\n\r\n", None),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "GET /healthz answered 503"),
        (
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            "GET /healthz answered 404; x-mesh.health sets another path, or tcp",
        ),
        (b"SSH-2.0-server\r\n", "did not answer in HTTP"),
        (b"", "closed the connection without an answer"),
        (None, "no answer within 0.3 s"),
    ],
)
async def test_results_of_an_http_probe(
    answering: Callable[[bytes | None], "asyncio.Future[int]"],
    answer: bytes | None,
    problem: str | None,
) -> None:
    port = await answering(answer)
    health = HTTP if answer is not None else HTTP.model_copy(update={"timeout": 0.3})
    assert await probe("127.0.0.1", port, health) == problem


@pytest.mark.parametrize(
    ("mesh", "sent"),
    [
        ({}, [b"Host: 127.0.0.1:PORT", b"User-Agent: meshd-probe", b"Accept: */*"]),
        ({"routes": ["/", "*.b.example", "shop.example/x"]}, [b"Host: shop.example"]),
        (
            {"routes": ["a.example"], "health": {"host": "b.example:81"}},
            [b"Host: b.example:81"],
        ),
        (
            {"health": {"headers": {"user-agent": "me", "X-Forwarded-Proto": "https"}}},
            [b"Host: 127.0.0.1:PORT", b"user-agent: me", b"X-Forwarded-Proto: https"],
        ),
    ],
)
async def test_the_fields_that_a_probe_sends(mesh: dict[str, object], sent: list[bytes]) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")
        writer.close()

    server = await start_server(serve)
    port = server.port
    assert await probe("127.0.0.1", port, Mesh.model_validate(mesh).probe) is None
    await server.close()
    lines = heads[0].split(b"\r\n")
    for line in sent:
        assert line.replace(b"PORT", b"%d" % port) in lines
    names = [line.partition(b":")[0].lower() for line in lines if b":" in line]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("health", "text"),
    [
        ({"host": "a b"}, "is not a valid host"),
        ({"host": "a\r\nX: 1"}, "is not a valid host"),
        ({"headers": {"Host": "a"}}, "expected it in health.host"),
        ({"headers": {"Connection": "close"}}, "is written by the probe"),
        ({"headers": {"X Y": "1"}}, "is not a valid header field name"),
        ({"headers": {"X-Y": "1\r\nZ: 2"}}, "has a control character"),
        ({"type": "tcp", "host": "a"}, "are for HTTP probes"),
    ],
)
def test_invalid_fields_of_a_probe_are_refused(health: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        HealthCheck.model_validate(health)


async def test_a_probe_over_tls_verifies_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")
        writer.close()

    context = server_context(authority.issue("orders"))
    server = await start_server(serve, ssl=context)
    port = server.port
    tls = UpstreamTls(ca=authority.ca, server_name="orders")
    slow = HealthCheck(path="/healthz", timeout=5)
    assert await probe("127.0.0.1", port, slow, "", ProbeOpening(tls)) is None
    assert heads[0].startswith(b"GET /healthz HTTP/1.1\r\n")
    wrong = UpstreamTls(ca=authority.ca, server_name="other")
    said = "no TLS connection: its certificate is not for other"
    assert await probe("127.0.0.1", port, slow, "", ProbeOpening(wrong)) == said
    tcp = HealthCheck(type="tcp", timeout=5)
    assert await probe("127.0.0.1", port, tcp, "", ProbeOpening(tls)) is None
    assert await probe("127.0.0.1", port, tcp, "", ProbeOpening(wrong)) == said
    missing = UpstreamTls(ca="/no.pem", server_name="orders")
    found = await probe("127.0.0.1", port, slow, "", ProbeOpening(missing))
    assert found == "/no.pem cannot be read: No such file or directory"
    assert len(heads) == 1
    await server.close()


async def test_a_tcp_probe_only_connects(
    answering: Callable[[bytes | None], "asyncio.Future[int]"], free_port: int
) -> None:
    tcp = HealthCheck(type="tcp", timeout=5)
    assert await probe("127.0.0.1", await answering(None), tcp) is None
    assert await probe("127.0.0.1", free_port, tcp) == "connection refused"


async def test_a_starting_replica_is_noticed_soon_after_it_listens(free_port: int) -> None:
    changed = asyncio.Event()
    prober = Prober(changed.set)
    target = ProbeTarget(host="127.0.0.1", port=free_port, health=HTTP, incarnation=("1", 1.0))
    prober.set_targets({"a": target})
    await wait_until(lambda: "a" in prober.results and prober.results["a"].text, what="a probe")
    assert prober.results["a"].text == "connection refused"
    assert not prober.results["a"].first_good

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")
        writer.close()

    server = await start_server(serve, free_port)
    up = time.monotonic()
    async with asyncio.timeout(20):
        while not prober.results["a"].first_good:
            changed.clear()
            await changed.wait()
    print(f"known {time.monotonic() - up:.3f} s after it was up")
    assert time.monotonic() - up < 5.0
    await server.close()
    async with asyncio.timeout(20):
        while prober.results["a"].bad < 2:
            changed.clear()
            await changed.wait()
    assert prober.results["a"].first_good
    prober.set_targets({})
    assert prober.results == {}
    await prober.close()


async def test_readiness_is_probed_separately_from_health() -> None:
    answers: dict[str, str | None] = {"/healthz": None, "/ready": "GET /ready answered 503"}
    asked: list[str] = []
    changed = asyncio.Event()

    async def ask(
        host: str, port: int, health: HealthCheck, path: str, opening: object
    ) -> str | None:
        asked.append(health.path)
        return answers[health.path]

    async def until(holds: Callable[[ProbeResult], bool]) -> ProbeResult:
        async with asyncio.timeout(10):
            while not holds(prober.results.get("a", ProbeResult())):
                changed.clear()
                await changed.wait()
        return prober.results["a"]

    prober = Prober(changed.set, ask)
    health = HealthCheck(ready="/ready", interval=0.01)
    prober.set_targets({"a": ProbeTarget("127.0.0.1", 1, health, ("id", 1.0))})
    try:
        starting = await until(lambda seen: bool(seen.unready))
        assert (starting.bad, starting.first_good) == (0, 0.0)
        assert starting.text == "GET /ready answered 503"
        answers["/ready"] = None
        ready = await until(lambda seen: bool(seen.first_good))
        assert ready.unready == ""
        answers["/ready"] = "GET /ready answered 503"
        resting = await until(lambda seen: bool(seen.unready))
        assert resting.first_good == ready.first_good
        answers["/healthz"] = "connection refused"
        sick = await until(lambda seen: seen.bad > 1)
        assert sick.unready
    finally:
        await prober.close()
    assert asked[:4] == ["/healthz", "/ready", "/healthz", "/ready"]


async def test_the_address_that_answers_is_found_and_probed_first() -> None:
    asked: list[str] = []
    changed = asyncio.Event()

    async def ask(
        host: str, port: int, health: HealthCheck, path: str, opening: object
    ) -> str | None:
        asked.append(host)
        return None if host == "10.0.0.2" else "no answer within 1 s"

    prober = Prober(changed.set, ask)
    health = HealthCheck(interval=0.01)
    target = ProbeTarget("10.0.0.1", 1, health, ("id", 1.0), alternatives=("10.0.0.2",))
    prober.set_targets({"a": target})
    try:
        await wait_until(lambda: len(asked) > 3)
    finally:
        await prober.close()
    assert asked[:4] == ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2"]
    assert prober.results["a"].host == "10.0.0.2"


async def test_a_port_that_stays_closed_is_explained() -> None:
    changed = asyncio.Event()
    now, asked = 1000.0, []

    async def refuse(*_: object) -> str | None:
        return REFUSED

    def hint(*arguments: object) -> str:
        asked.append(arguments)
        return "the container listens on port 3000"

    prober = Prober(changed.set, refuse, clock=lambda: now, hint=hint)
    health = HealthCheck(interval=0.01)
    container = ProbeTarget("10.0.0.1", 8080, health, ("id", 1.0), pid=7)
    prober.set_targets({"a": container, "process": msgspec.structs.replace(container, pid=0)})
    try:
        await wait_until(lambda: len(prober.results) == 2)
        assert {each.text for each in prober.results.values()} == {REFUSED}
        assert not asked
        now += 4
        expected = f"{REFUSED}: the container listens on port 3000"
        await wait_until(lambda: prober.results["a"].text == expected)
        assert asked[0] == ("10.0.0.1", 8080, 7)
        assert prober.results["process"].text == REFUSED
    finally:
        await prober.close()


def test_thousands_of_replicas_are_probed_less_often() -> None:
    asked = 0

    async def ask(
        host: str, port: int, health: HealthCheck, path: str, opening: object
    ) -> str | None:
        nonlocal asked
        asked += 1
        return None

    async def probe_for(count: int) -> float:
        """Return the probes per second once all replicas are known."""
        prober = Prober(lambda: None, ask, virtual.clock)
        health = HealthCheck(interval=1.0)
        prober.set_targets({str(n): ProbeTarget("h", n, health, ("id", 1.0)) for n in range(count)})
        await virtual.elapse(4)
        before = asked
        await virtual.elapse(12)
        await prober.close()
        return (asked - before) / 12

    assert virtual.run(probe_for(100)) == pytest.approx(100, rel=0.1)
    assert virtual.run(probe_for(800)) == pytest.approx(400, rel=0.1)
