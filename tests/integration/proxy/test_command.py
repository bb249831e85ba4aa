"""`meshd proxy` from the command line."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes.supervised import Supervised
from tests.processes.traffic import SteadyClients, fetch, origin
from tests.support.certificate_authority import Authority, server_context
from tests.support.waiting import stays, wait_until


@contextmanager
def meshd_proxy(directory: Path, *options: str) -> Iterator[Supervised]:
    """Run `meshd proxy` with these options while the block runs."""
    log = directory / f"proxy-{len(list(directory.iterdir()))}.log"
    running = Supervised([sys.executable, "-m", "meshd.cli.main", "proxy", *options], log)
    try:
        yield running
    finally:
        running.close()


async def test_it_serves_at_once_and_prints_its_address(tmp_path: Path) -> None:
    async with origin("a") as a, origin("b") as b:
        to = ("--to", f"127.0.0.1:{a.port}", "--to", f"127.0.0.1:{b.port}")
        with meshd_proxy(tmp_path, "--listen", "127.0.0.1:0", *to, "--workers", "2") as running:
            address = await running.listening()
            answers = {await fetch(address, "/x") for _ in range(30)}
            assert answers == {(200, "a /x"), (200, "b /x")}
            assert len(running.workers()) == len(running.children()) == 2


async def test_two_proxies_with_the_proxy_protocol_between_them(tmp_path: Path) -> None:
    """The second one sees the client of the first one, and refuses connections without header."""
    async with origin("a") as a:
        behind = tmp_path / "behind.yml"
        behind.write_text(
            f"listen: 127.0.0.1:0\nto: 127.0.0.1:{a.port}\naccess_log: on\n"
            "listeners: {'127.0.0.1:0': {proxy_protocol: {from: 127.0.0.0/8}}}\n"
        )
        with meshd_proxy(tmp_path, "--config", str(behind)) as second:
            to = await second.listening()
            front = tmp_path / "front.yml"
            front.write_text(
                f"listen: 127.0.0.1:0\nto: {to}\nupstream: {{proxy_protocol: v2}}\n"
                f"trusted_proxies: 127.0.0.1\nhealth: /ok\n"
            )
            with meshd_proxy(tmp_path, "--config", str(front)) as first:
                assert await fetch(await first.listening(), "/x") == (200, "a /x")
            with pytest.raises(ConnectionError):
                await fetch(to)
            await wait_until(lambda: "has no PROXY header" in second.said, 10, lambda: second.said)


async def test_an_origin_that_is_reached_by_https(tmp_path: Path) -> None:
    """Requests and probes are encrypted; a new CA file is read at SIGHUP, a wrong one refused."""
    authority = Authority(tmp_path)
    tls = server_context(authority.issue("localhost"))
    async with origin("a", tls=tls) as a:
        file = tmp_path / "front.yml"
        text = (
            f"listen: 127.0.0.1:0\nto: https://localhost:{a.port}\nhealth: /ok\n"
            f"upstream: {{tls: {{ca: {Path(authority.ca).name}}}}}\n"
        )
        file.write_text(text)
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            assert await fetch(address, "/x") == (200, "a /x")
            await wait_until(lambda: a.requests > 2, 10, "probes")
            file.write_text(text.replace("Test-CA.pem", "no.pem"))
            running.signal(signal.SIGHUP)
            await wait_until(
                lambda: "no.pem cannot be read" in running.said, 10, lambda: running.said
            )
            assert await fetch(address, "/x") == (200, "a /x")


@pytest.mark.parametrize("form", ["[::1]:0", "unix:{}/front.sock"])
async def test_other_addresses(tmp_path: Path, form: str) -> None:
    behind_path = f"{tmp_path}/behind.sock"
    async with origin("u", behind_path):
        listen = form.format(tmp_path)
        options = ("--listen", listen, "--to", f"unix:{behind_path}")
        with meshd_proxy(tmp_path, *options) as running:
            address = await running.listening()
            assert await fetch(address, "/x") == (200, "u /x")
            running.signal(signal.SIGINT)
            assert await running.ended() == 0
    assert not (tmp_path / "front.sock").exists()


async def test_the_mode_of_a_unix_socket(tmp_path: Path) -> None:
    open_path, closed_path = tmp_path / "open.sock", tmp_path / "closed.sock"
    async with origin("a") as a:
        file = tmp_path / "front.yml"
        file.write_text(
            f"listen: ['unix:{open_path}', 'unix:{closed_path}']\nto: '127.0.0.1:{a.port}'\n"
            f"listeners: {{'unix:{open_path}': {{mode: '0666'}}, "
            f"'unix:{closed_path}': {{mode: '600'}}}}\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            assert await fetch(await running.listening(), "/x") == (200, "a /x")
            modes = [stat.S_IMODE(path.stat().st_mode) for path in (open_path, closed_path)]
            assert modes == [0o666, 0o600]
            open_path.chmod(0o600)
            running.signal(signal.SIGUSR2)
            await wait_until(
                lambda: stat.S_IMODE(open_path.stat().st_mode) == 0o666, 15, "set again"
            )


async def test_clients_of_a_trusted_unix_socket(tmp_path: Path) -> None:
    """What the proxy before the socket says counts, and the chain ends with its client."""
    path = tmp_path / "front.sock"
    async with origin("a") as a:
        file = tmp_path / "front.yml"
        file.write_text(
            f"listen: 'unix:{path}'\nto: '127.0.0.1:{a.port}'\ntrusted_proxies: 'unix:{path}'\n"
            "x-mesh: {routes: [{path: /, rate_limit: {rate: 0.001, burst: 1}}]}\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            await running.listening()
            reader, writer = await asyncio.open_unix_connection(str(path))
            for number, status in ((1, b"200"), (2, b"200"), (1, b"429")):
                field = b"X-Forwarded-For: 203.0.113.%d\r\n" % number
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % field)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.split()[1] == status
                length = re.search(rb"(?i)content-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
            writer.close()


async def test_several_addresses_and_a_pid_file(tmp_path: Path) -> None:
    pid_file = tmp_path / "proxy.pid"
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--to", f"localhost:{a.port}")
        with meshd_proxy(tmp_path, *options, "--pid-file", str(pid_file)) as running:
            await running.listening(addresses=2)
            for address in running.bound():
                assert await fetch(address) == (200, "a /")
            assert int(pid_file.read_text()) == running.process.pid
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0
    assert not pid_file.exists()


async def test_a_signal_can_follow_the_pid_file_at_once(tmp_path: Path) -> None:
    pid_file = tmp_path / "proxy.pid"
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{a.port}")
        with meshd_proxy(tmp_path, *options, "--pid-file", str(pid_file)) as running:
            await wait_until(pid_file.exists, 20, "its PID file", interval=0.0005)
            running.signal(signal.SIGHUP)
            assert await fetch(await running.listening()) == (200, "a /")
            assert "killed by SIGHUP" not in running.said
            pid_file.write_text("1\n")  # of a proxy that has started meanwhile
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0
    assert pid_file.read_text() == "1\n"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".proxy")] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "{taken}", "--to", "127.0.0.1:9"), "cannot listen on {taken}: Address"),
        (
            ("--listen", "127.0.0.1:0", "--to", "127.0.0.1:9", "--admin", "{taken}"),
            "cannot listen on {taken}: Address already in use",
        ),
        (("--listen", "127.0.0.1:0"), "no address to send requests to; use --to HOST:PORT"),
        (("--listen", "nonsense", "--to", "127.0.0.1:9"), "'nonsense' is not HOST:PORT"),
        (("--to", "127.0.0.1"), "'127.0.0.1' is not HOST:PORT"),
        (("--to", "127.0.0.1:0"), "not an address to connect to"),
        (("--to", "no-such-host.invalid:80"), "cannot resolve the host no-such-host.invalid"),
        (("--to", "127.0.0.1:9", "--connect-timeout", "soon"), "soon"),
        (("--to", "127.0.0.1:9", "--config", "{directory}/none.yml"), "none.yml"),
        (("--to", "127.0.0.1:9", "--trusted-proxy", "everyone"), "everyone"),
        (("--nonsense",), "--nonsense"),
    ],
)
async def test_impossible_settings_exit_with_2(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        taken = f"127.0.0.1:{occupant.getsockname()[1]}"
        arguments = [each.format(taken=taken, directory=tmp_path) for each in options]
        with meshd_proxy(tmp_path, *arguments) as running:
            assert await running.ended() == 2
            assert said.format(taken=taken) in running.said
            assert "Traceback" not in running.said


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("to: 127.0.0.1:9\nretries:\n  attemps: 3\n", 3, "attemps"),
        ("to: 127.0.0.1:9\nx-mesh:\n  timeouts: {connect: soon}\n", 3, "soon"),
        ("to: 127.0.0.1:9\nscale: {max: 3}\n", 2, "starts no replicas"),
        ("to: 127.0.0.1:9\nblance: random\n", 2, "did you mean balance?"),
        ("to: [127.0.0.1:9\n", 0, "invalid YAML"),
        ("- to\n", 1, "expected a mapping"),
        ("listen: 127.0.0.1:0\n", 1, "no address to send requests to"),
    ],
)
async def test_a_wrong_file_names_line_and_field(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    file = tmp_path / "front.yml"
    file.write_text(text)
    with meshd_proxy(tmp_path, "--config", str(file)) as running:
        assert await running.ended() == 2
        assert f"{file}:{line}" if line else str(file) in running.said
        assert said in running.said
        assert "Traceback" not in running.said


async def test_the_admin_address_serves_health_and_metrics(tmp_path: Path, free_port: int) -> None:
    admin = f"127.0.0.1:{free_port}"
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{a.port}", "--workers", "2")
        with meshd_proxy(tmp_path, *options, "--admin", admin) as running:
            address = await running.listening()
            for _ in range(20):
                assert (await fetch(address))[0] == 200
            await _metric(
                admin, 'meshd_requests_total{service="proxy/upstream",method="GET",code="2xx"}', 20
            )
            assert (await fetch(admin, "/healthz"))[0] == 200
            helper = [pid for pid in running.children() if pid not in running.workers()]
            os.kill(helper[0], signal.SIGKILL)
            assert (await fetch(address))[0] == 200
            assert (await fetch(admin, "/healthz"))[0] == 200


async def test_a_name_that_does_not_resolve_costs_only_itself(
    tmp_path: Path, free_port: int
) -> None:
    admin = f"127.0.0.1:{free_port}"
    async with origin("a") as a:
        to = ("--to", f"127.0.0.1:{a.port}", "--to", f"no-such-host.invalid:{a.port}")
        with meshd_proxy(tmp_path, "--listen", "127.0.0.1:0", *to, "--admin", admin) as running:
            address = await running.listening()
            assert "cannot resolve the host no-such-host.invalid" in running.said
            assert (await fetch(address))[0] == 200
            assert (await fetch(admin, "/healthz"))[0] == 200
            (helper,) = [pid for pid in running.children() if pid not in running.workers()]
            os.kill(helper, signal.SIGKILL)
            assert (await fetch(admin, "/healthz"))[0] == 200
            assert running.said.count("child helper ended") == 1
            assert "Traceback" not in running.said


async def _metric(admin: str, start: str, value: float) -> None:
    """Wait until a metric has a value."""
    found: list[str] = []

    async def has_value() -> bool:
        _, text = await fetch(admin, "/metrics")
        found[:] = [line for line in text.splitlines() if line.startswith(start)]
        return any(float(line.split()[-1]) == value for line in found)

    await wait_until(has_value, 10, lambda: f"{start} is {value}: {found}", interval=0.1)


async def test_probes_remove_and_restore_an_endpoint(tmp_path: Path) -> None:
    async with origin("a") as a, origin("b") as b:
        to = ("--to", f"127.0.0.1:{a.port}", "--to", f"127.0.0.1:{b.port}")
        health = ("--health-path", "/sick", "--health-interval", "100ms")
        with meshd_proxy(tmp_path, "--listen", "127.0.0.1:0", *to, *health) as running:
            address = await running.listening()
            await _answering(address, {"a", "b"})
            b.sick = True
            await _answering(address, {"a"})
            b.sick = False
            await _answering(address, {"a", "b"})


async def _answering(address: str, names: set[str]) -> None:
    """Wait until requests are answered by exactly these origins."""
    seen: set[str] = set()

    async def answered() -> bool:
        nonlocal seen
        answers = [await fetch(address) for _ in range(20)]
        assert {status for status, _ in answers} == {200}
        seen = {body.split()[0] for _, body in answers}
        return seen == names

    await wait_until(answered, 10, lambda: f"answered by {names}: {seen}", interval=0.05)


async def test_without_a_health_path_nothing_is_probed(tmp_path: Path) -> None:
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{a.port}")
        with meshd_proxy(tmp_path, *options) as running:
            await running.listening()
            await stays(lambda: a.requests == 0, 1.5, "no probe")


async def test_a_file_is_read_again_at_sighup_without_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "front.yml"
    async with origin("a") as a, origin("b") as b:
        settings = "listen: 127.0.0.1:0\nx-mesh: {retries: {attempts: 1}}\n"
        file.write_text(f"{settings}to: 127.0.0.1:{a.port}\n")
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            assert await fetch(address) == (200, "a /")
            load = SteadyClients(address)
            load.start(clients=4)
            file.write_text(f"{settings}to: [127.0.0.1:{b.port}]\n")
            running.signal(signal.SIGHUP)
            await _answering(address, {"b"})
            file.write_text("to: [broken\n")
            running.signal(signal.SIGHUP)
            await wait_until(lambda: "invalid YAML" in running.said, 10, "the error is logged")
            await _answering(address, {"b"})
            await load.stop()
            assert load.failures == []


async def test_the_access_log_has_one_line_per_request(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{a.port}", "--workers", "2")
        log = ("--access-log", "on", "--access-log-file", str(file))
        with meshd_proxy(tmp_path, *options, *log) as running:
            address = await running.listening()
            for number in range(20):
                await fetch(address, f"/{number}")
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(int(entry["target"][1:]) for entry in entries) == list(range(20))
    assert {entry["status"] for entry in entries} == {200}


async def test_an_upgrade_keeps_everything(tmp_path: Path, free_port: int) -> None:
    admin = f"127.0.0.1:{free_port}"
    async with origin("a") as a:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{a.port}", "--admin", admin)
        with meshd_proxy(tmp_path, *options) as running:
            address = await running.listening()
            before = running.workers()
            running.signal(signal.SIGUSR2)
            await wait_until(
                lambda: len(running.workers()) == 1 and running.workers() != before, 20, "upgraded"
            )
            assert await fetch(address) == (200, "a /")
            assert (await fetch(admin, "/healthz"))[0] == 200
            running.signal(signal.SIGINT)
            assert await running.ended() == 0
            assert "Traceback" not in running.said


async def test_another_package_named_proxy_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "proxy"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    with meshd_proxy(tmp_path, "--to", "127.0.0.1:9") as running:
        assert await running.ended() == 2
        assert "another package named 'proxy'" in running.said
