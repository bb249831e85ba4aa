"""Processes of a benchmark: start them pinned to cores, check their answers, stop them by pid."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.scenes import HEADERS


class NotServing(Exception):
    """A program ended, did not answer in time, or gave a wrong answer."""


@contextlib.contextmanager
def running(command: Sequence[str], port: int, cores: Sequence[int], home: Path) -> Iterator[int]:
    """Run a server during the block; yield its pid once it accepts on `port`."""
    pinned = ["taskset", "-c", ",".join(map(str, cores)), *command]
    with open(home / "output", "wb") as output:
        process = subprocess.Popen(
            pinned, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await(process, port, home)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            # The session was created for this process (`start_new_session` above).
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(process: "subprocess.Popen[bytes]", port: int, home: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    output = (home / "output").read_text(errors="replace")[-2000:]
    raise NotServing(f"{process.args!r} does not accept on port {port}: {output}")


def check(port: int, origin: int, patience: float = 5.0) -> None:
    """Repeat `check_once` until it succeeds.

    A server may accept before it knows its routes. Raises NotServing after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            check_once(port, origin)
            return
        except (NotServing, OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise NotServing(str(error)) from error
        time.sleep(0.2)


def check_once(port: int, origin: int) -> None:
    """Check the answers before anything is measured. Raises NotServing.

    Target and fields must arrive as sent, bodies must be the origin's, and a connection must serve
    two requests.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(2):
        tag = f"tag-{number}"
        connection.request(
            "GET", f"/echo/{number}?q=%20", headers={**HEADERS, "X-Request-Tag": tag}
        )
        answer = connection.getresponse()
        body = answer.read().decode()
        expected = f"GET /echo/{number}?q=%20 {tag} {HEADERS['Cookie']}"
        if (answer.status, body) != (200, expected):
            raise NotServing(f"answered {answer.status} {body!r}, expected {expected!r}")
    direct = http.client.HTTPConnection("127.0.0.1", origin, timeout=20)
    for method, path, content in (
        ("GET", "/files/100k", b""),
        ("GET", "/files/10m", b""),
        ("POST", "/api/orders", b"x" * 4096),
    ):
        answers = []
        for each in (connection, direct):
            each.request(method, path, body=content or None, headers=HEADERS)
            answer = each.getresponse()
            answers.append((answer.status, answer.getheader("content-length"), answer.read()))
        if answers[0] != answers[1]:
            raise NotServing(f"{method} {path} is answered differently from the origin")
    connection.close()
    direct.close()
