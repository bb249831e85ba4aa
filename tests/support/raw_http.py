"""A scripted raw origin, a raw client and a real proxy process between them.

Bytes are written and read as they are, with blocking sockets and threads, so that a test reads like
a transcript. Nothing here imports the proxy's code.
"""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.support.waiting import BUSY, elapse_blocking

PATIENCE = 8.0 * BUSY


class Closed(Exception):
    """The peer ended the connection before the expected bytes arrived."""


@dataclass
class Message:
    """A parsed head, and the body once it was read. Fields keep their order; names are in lower
    case."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def get(self, name: bytes) -> bytes | None:
        return next(iter(self.all(name)), None)


class Wire:
    """One connection, seen from either end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> None:
        data = self.sock.recv(262144)
        if not data:
            raise Closed(f"ended after {self.buffer[-200:]!r}")
        self.buffer += data

    def until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`."""
        while mark not in self.buffer:
            self._more()
        end = self.buffer.index(mark) + len(mark)
        found, self.buffer = self.buffer[:end], self.buffer[end:]
        return found

    def exactly(self, count: int) -> bytes:
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            data = self.sock.recv(262144)
            if not data:
                raise Closed(f"ended {count - have} bytes early")
            pieces.append(data)
            have += len(data)
        whole = b"".join(pieces)
        self.buffer = whole[count:]
        return whole[:count]

    def head(self) -> Message:
        lines = self.until(b"\r\n\r\n")[:-4].split(b"\r\n")
        fields = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            fields.append((name.lower(), value.strip()))
        return Message(lines[0], fields)

    def chunk(self) -> bytes:
        """Read the next chunk; b"" for the last."""
        size = int(self.until(b"\r\n").split(b";")[0], 16)
        if not size:
            return b""
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def chunked(self, message: Message) -> None:
        while piece := self.chunk():
            message.body += piece
        while (line := self.until(b"\r\n")) != b"\r\n":
            message.trailers += line

    def request(self) -> Message:
        """Read a whole request, as an origin does."""
        message = self.head()
        if message.get(b"transfer-encoding"):
            self.chunked(message)
        elif length := message.get(b"content-length"):
            message.body = self.exactly(int(length))
        return message

    def response(self, *, to_head: bool = False) -> Message:
        """Read a whole final response, as a client does. Raises Closed on a broken one."""
        message = self.head()
        while message.status < 200 and message.status != 101:
            message = self.head()
        if to_head or message.status in (101, 204, 304):
            return message
        if message.get(b"transfer-encoding"):
            self.chunked(message)
        elif (length := message.get(b"content-length")) is not None:
            message.body = self.exactly(int(length))
        else:
            message.body = self.rest()
        return message

    def rest(self) -> bytes:
        """Read until the peer closes its side."""
        pieces = [self.buffer]
        self.buffer = b""
        while data := self.sock.recv(262144):
            pieces.append(data)
        return b"".join(pieces)

    def quiet(self, seconds: float = 0.15) -> bool:
        """Whether nothing arrives within `seconds`; an end counts as something."""
        return not self.buffer and not select.select([self.sock], [], [], seconds)[0]

    def ended(self, seconds: float = PATIENCE) -> bool:
        """Whether the peer ends or resets the connection within `seconds` and sends nothing."""
        try:
            return bool(select.select([self.sock], [], [], seconds)[0]) and not self.sock.recv(1)
        except ConnectionError:
            return True

    def finish(self) -> None:
        """Close the writing side only."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Script = Callable[[Wire], None]


class Origin:
    """Run `script` for each connection. Its errors are kept in `errors`, except for the end of the
    connection, which ends the script."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listening.getsockname()[1]
        self.script: Script = hello
        self.connections = 0
        self.errors: list[BaseException] = []
        self._open: list[Wire] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            wire = Wire(sock)
            self._open.append(wire)
            threading.Thread(target=self._serve, args=(wire, self.script), daemon=True).start()

    def _serve(self, wire: Wire, script: Script) -> None:
        try:
            script(wire)
        except (Closed, OSError):
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.errors.append(error)
        finally:
            wire.close()

    def play(self, script: Script) -> None:
        """Run `script` from now on, and end the connections that are open."""
        self.script = script
        self.connections = 0
        self.errors.clear()
        for wire in self._open:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        if self._open:
            elapse_blocking(0.05, "the proxy notices that its connections ended")
        self._open.clear()

    def close(self) -> None:
        self.play(hello)
        self.listening.close()


def hello(wire: Wire) -> None:
    """Answer every request with the same response."""
    while True:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def answering(response: bytes, *, seen: list[Message] | None = None) -> Script:
    """Return a script that answers each request with `response` and appends it to `seen`."""

    def script(wire: Wire) -> None:
        while True:
            message = wire.request()
            if seen is not None:
                seen.append(message)
            wire.send(response)

    return script


class Proxy:
    """A real `meshd proxy` process; `files` is its limit of open files."""

    def __init__(self, to: Sequence[int], *flags: str, files: int = 0) -> None:
        command = ["prlimit", f"--nofile={files}:{files}"] if files else []
        command += [sys.executable, "-m", "meshd.cli.main", "proxy", "--listen", "127.0.0.1:0"]
        for port in to:
            command += ["--to", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert line.startswith("listening on "), line
        self.port = int(line.split()[2].rsplit(":", 1)[1])

    def connect(self, small_window: bool = False) -> Wire:
        sock = socket.socket()
        if small_window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        return Wire(sock)

    def memory(self) -> int:
        """Return the resident memory of all its processes, in bytes."""
        total, pids = 0, [self._process.pid]
        while pids:
            pid = pids.pop()
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as children:
                        pids += [int(child) for child in children.read().split()]
                with open(f"/proc/{pid}/statm") as statm:
                    total += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total

    def stop(self) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process.stdout.close()


@dataclass
class Scene:
    """A proxy in front of an origin."""

    proxy: Proxy
    origin: Origin

    def exchange(self, request: bytes, *, to_head: bool = False) -> Message:
        """Send one request on a new connection, and return the response."""
        with self.proxy.connect() as client:
            client.send(request)
            return client.response(to_head=to_head)


class Stage:
    """Proxies by their flags, each started once for a test module."""

    def __init__(self) -> None:
        self._scenes: dict[tuple[str, ...], Scene] = {}

    def scene(self, script: Script, *flags: str) -> Scene:
        """Return a proxy with these flags and an origin that runs `script` from now on."""
        if flags not in self._scenes:
            origin = Origin()
            self._scenes[flags] = Scene(Proxy([origin.port], "--drain", "0s", *flags), origin)
        scene = self._scenes[flags]
        scene.origin.play(script)
        return scene

    def errors(self) -> list[BaseException]:
        """Return the errors of the scripts since the last call."""
        found = [error for scene in self._scenes.values() for error in scene.origin.errors]
        for scene in self._scenes.values():
            scene.origin.errors.clear()
        return found

    def close(self) -> None:
        for scene in self._scenes.values():
            scene.proxy.stop()
            scene.origin.close()


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    stage = Stage()
    try:
        yield stage
    finally:
        stage.close()


def get(path: bytes = b"/", *lines: bytes, method: bytes = b"GET") -> bytes:
    """Return a small HTTP/1.1 request."""
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: test", *lines, b"", b""])
