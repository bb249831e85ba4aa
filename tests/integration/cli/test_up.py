"""`meshd up` and `meshd down` with a real daemon and real local replicas."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from meshd.cli import daemon_process
from tests.support.ports import free_port
from tests.support.waiting import wait_until_blocking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Follower:
    """A running `meshd WORDS -f -o json`, and the lines that it prints."""

    def __init__(self, meshd: "Meshd", *words: str) -> None:
        command = meshd.arguments(*words, "-f", "-o", "json")
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        def held() -> bool:
            if holds(self.lines):
                return True
            assert self._process.poll() is None, "it has ended"
            return False

        wait_until_blocking(held, 10, lambda: self.lines[-20:])

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


GOOD = """\
name: {name}
services:
  web:
    command: [sh, -c, 'exec {python} -u -m http.server "$$PORT" --bind 127.0.0.1']
    x-mesh: {{routes: [{route}], health: /, scale: {{min: 2, max: 2}}}}
"""
BROKEN = """\
name: broken
services:
  web:
    command: [sh, -c, 'echo the database is not there; exit 3']
    x-mesh: {routes: [/], scale: {min: 1, max: 1}, health: {path: /, start_timeout: 3s}}
"""


SLOW = """\
name: shop
services:
  web:
    command: [{python}, -c, "{code}"]
    x-mesh: {{routes: [/], scale: {{min: 1, max: 1}}}}
"""
CODE = (
    "import http.server, os, time; "
    "H = type('H', (http.server.BaseHTTPRequestHandler,), {'do_GET': lambda self: "
    "(time.sleep(10 * (self.path == '/slow')), self.send_response(204), self.end_headers())}); "
    "http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()"
)
"""A server that takes 10 s for /slow."""


class Meshd:
    """The `meshd` command with its own state directory and addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "s"
        self.ports = [free_port(), free_port()]

    def arguments(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "meshd", *arguments, "--state", str(self.state)]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*arguments), capture_output=True, text=True, timeout=90, check=False
        )

    def control(self) -> int:
        """Return the process id of the control process."""
        supervisor = daemon_process.running_pid(self.state)
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        (found,) = [
            int(child)
            for child in children
            if b"meshd.daemon" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        return found

    def ask(self, path: str) -> None:
        """Send a request; any answer is fine."""
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}{path}", timeout=10).close()

    def up(self, file: str, *more: str) -> list[str]:
        return [
            "up", "-f", file, "--runtime", "process", "--workers", "1", "--timeout", "60s",
            "--listen", f"127.0.0.1:{self.ports[0]}", "--metrics", f"127.0.0.1:{self.ports[1]}",
            *more,
        ]  # fmt: skip

    @contextmanager
    def foreground(self) -> Iterator[subprocess.Popen[str]]:
        """Run `up` without --detach; kill it at the end if it still runs."""
        with subprocess.Popen(
            self.arguments(*self.up(self.file(GOOD))),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def file(self, text: str, name: str = "shop", route: str = "/") -> str:
        path = self.folder / f"{name}.yml"
        if "{python}" in text:
            text = text.format(python=sys.executable, name=name, route=route)
        path.write_text(text)
        return str(path)

    def fetch(self, path: str = "/") -> int:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports[0]}{path}", timeout=60
        ) as answer:
            return int(answer.status)


@pytest.fixture
def meshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meshd]:
    made = Meshd(tmp_path_factory.mktemp("up"))
    yield made
    pid = daemon_process.running_pid(made.state)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        wait_until_blocking(
            lambda: not daemon_process.running_pid(made.state), 10, "the daemon ended"
        )


def test_up_detached_and_down(meshd: Meshd) -> None:
    edges = ("--access-log", "on", "--trusted-proxy", "127.0.0.0/8")
    up = meshd(*meshd.up(meshd.file(GOOD), "--detach", *edges))
    assert up.returncode == 0, up.stderr
    assert up.stderr.startswith("process runtime")
    lines = up.stdout.splitlines()
    assert lines[-3].startswith("web ")
    assert "ready 2/2 after" in lines[-3]
    assert lines[-2].startswith("web  HTTP (x-mesh; main port 8080, ")
    assert f"listening on 127.0.0.1:{meshd.ports[0]}" in lines[-1]
    assert meshd.fetch() == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{meshd.ports[1]}/metrics") as answer:
        assert b'meshd_replicas{service="shop/web",state="ready"} 2.0' in answer.read()

    again = meshd(*meshd.up(meshd.file(GOOD), "--detach"))
    assert again.returncode == 0, again.stderr
    assert "using the daemon" in again.stderr
    assert "different settings" not in again.stderr
    log = meshd.state / "access.log"
    assert json.loads(log.read_text().splitlines()[0])["service"] == "shop/web"
    assert b"127.0.0.0/8" in (meshd.state / "snapshot.bin").read_bytes()
    asked = meshd(*meshd.up(meshd.file(GOOD), "--detach", "--access-log", "sampled"))
    assert "different settings for the access log" in asked.stderr
    other = meshd("up", "-f", meshd.file(GOOD), "--runtime", "docker", "--detach")
    assert other.returncode == 2
    assert "uses the process runtime, not docker" in other.stderr
    leaving = meshd(*meshd.up(meshd.file(GOOD), "--detach", "--no-adopt"))
    assert leaving.returncode == 2
    assert "adopts containers that something else started" in leaving.stderr

    second = meshd(*meshd.up(meshd.file(GOOD, "bar", "/bar"), "--detach"))
    assert second.returncode == 0, second.stderr
    assert meshd("down", "bar").returncode == 0
    assert meshd.fetch() == 200
    down = meshd("down", "-o", "json")
    assert json.loads(down.stdout) == {"down": ["shop"], "left": [], "daemon_ended": True}
    assert daemon_process.running_pid(meshd.state) is None
    assert meshd("ps").returncode == 3


def test_up_in_the_foreground_until_ctrl_c(meshd: Meshd) -> None:
    with meshd.foreground() as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "rollout.done" in line:
                break
        assert meshd.fetch() == 200
        assert any(line.startswith("press Ctrl-C to stop everything") for line in seen), seen
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
        assert process.returncode == 0, complained
        assert "stopping in order" in complained
        assert "replica.stopped" in said or "down" in said
        assert daemon_process.running_pid(meshd.state) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_daemon_starts_ends_it(meshd: Meshd, number: signal.Signals) -> None:
    def started() -> bool:
        return daemon_process.running_pid(meshd.state) is not None

    with meshd.foreground() as process:
        # It writes its pid file before its children start, long before it answers.
        wait_until_blocking(started, 60, "the daemon has started")
        process.send_signal(number)
        _, complained = process.communicate(timeout=60)
        assert process.returncode == 128 + number, complained
        assert complained.endswith("stopping the daemon, which was not ready yet\n")
        assert daemon_process.running_pid(meshd.state) is None


def test_the_daemon_ends_when_the_output_of_the_foreground_does(meshd: Meshd) -> None:
    with meshd.foreground() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("press Ctrl-C"):
                break
        process.stdout.close()  # as `head` does
        assert process.stderr is not None
        wait_until_blocking(lambda: process.poll() is not None, 60, process.args)
        assert "stopping in order" in process.stderr.read()
        assert daemon_process.running_pid(meshd.state) is None


def test_up_waits_for_a_daemon_that_ends(meshd: Meshd) -> None:
    text = SLOW.format(python=sys.executable, code=CODE, name="", route="")
    file = meshd.folder / "slow.yml"
    file.write_text(text)
    assert meshd(*meshd.up(str(file), "--detach")).returncode == 0
    first = daemon_process.running_pid(meshd.state)
    assert first is not None
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(meshd.fetch("/slow")))
    client.start()
    statuses = lambda: json.loads(meshd("ps", "-o", "json").stdout)  # noqa: E731
    wait_until_blocking(
        lambda: any(each["in_flight"] for each in statuses()["services"]), 20, statuses
    )
    os.kill(first, signal.SIGTERM)
    deploy = meshd("deploy", "-f", str(file))
    up = meshd(*meshd.up(str(file), "--detach"))
    client.join(20)
    assert deploy.returncode == 1
    assert "this daemon is ending; `meshd up` starts another one afterwards" in deploy.stderr
    assert up.returncode == 0, up.stderr
    assert f"the daemon in {meshd.state} is ending; waiting until it has ended" in up.stderr
    assert answers == [204]
    assert daemon_process.running_pid(meshd.state) not in (None, first)


def test_foreground_survives_a_killed_control_process(meshd: Meshd) -> None:
    with meshd.foreground() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "rollout.done" in line:
                break
        os.kill(meshd.control(), signal.SIGKILL)
        assert meshd.fetch() == 200
        drained = ""
        end = time.monotonic() + 30
        while time.monotonic() < end and not drained:
            shown = meshd("ps", "-r", "-o", "json")
            ready = [r for r in json.loads(shown.stdout or "[]") if r["phase"] == "ready"]
            drained = ready[0]["name"] if len(ready) == 2 else ""
        assert meshd("drain", drained).returncode == 0
        for line in process.stdout:
            if drained in line:
                break
        else:
            pytest.fail("events ended with the control process")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_followers_survive_a_killed_control_process(meshd: Meshd) -> None:
    assert meshd(*meshd.up(meshd.file(GOOD), "--detach")).returncode == 0
    logs, events = Follower(meshd, "logs", "web"), Follower(meshd, "events")
    try:
        logs.until(bool)  # both are there: probes are logged, and the deployment is an event
        events.until(bool)
        meshd.ask("/mark-1")
        logs.until(lambda lines: any("/mark-1 " in line["line"] for line in lines))
        os.kill(meshd.control(), signal.SIGKILL)
        meshd.ask("/mark-2")
        wait_until_blocking(lambda: meshd("ps").returncode == 0, 10, "the API answers again")
        meshd.ask("/mark-3")
        marks = ("/mark-1 ", "/mark-2 ", "/mark-3 ")
        logs.until(lambda lines: all(any(m in line["line"] for line in lines) for m in marks))
        for mark in marks:
            assert sum(mark in line["line"] for line in logs.lines) == 1, mark

        (ready, *_) = json.loads(meshd("ps", "-r", "-o", "json").stdout)
        assert meshd("drain", ready["name"]).returncode == 0
        events.until(lambda lines: any(line["kind"] == "replica.draining" for line in lines))
        ids = [line["id"] for line in events.lines]
        assert ids == sorted(set(ids))
    finally:
        logs.end()
        events.end()
        assert meshd("down", "--all").returncode == 0


def test_a_failed_start_shows_its_last_output_and_leaves_nothing(
    meshd: Meshd,
) -> None:
    up = meshd(*meshd.up(meshd.file(BROKEN, "broken"), "--detach"))
    assert up.returncode == 1
    assert "the database is not there" in up.stderr
    assert daemon_process.running_pid(meshd.state) is None
    assert meshd("ps").returncode == 3


def test_only_the_broken_project_is_removed(meshd: Meshd) -> None:
    assert meshd(*meshd.up(meshd.file(GOOD), "--detach")).returncode == 0
    route = BROKEN.replace("routes: [/]", "routes: [/broken]")
    up = meshd(*meshd.up(meshd.file(route, "broken"), "--detach"))
    assert up.returncode == 1
    assert "taking broken down again" in up.stderr
    status = json.loads(meshd("ps", "-o", "json").stdout)
    assert [service["project"] for service in status["services"]] == ["shop"]
    assert meshd.fetch() == 200
    assert meshd("down", "--all").returncode == 0


def test_a_port_in_use_is_reported_before_anything_starts(meshd: Meshd) -> None:
    with socket.create_server(("127.0.0.1", meshd.ports[0])):
        up = meshd(*meshd.up(meshd.file(GOOD), "--detach"))
    assert up.returncode == 2
    assert f"cannot listen on 127.0.0.1:{meshd.ports[0]}: address already in use" in up.stderr
    assert "--listen" in up.stderr
    assert daemon_process.running_pid(meshd.state) is None
