"""The two front doors of the control process.

    async with serve(control, state / "admin.sock", "127.0.0.1:9900") as serving:
        ...                       # serving.metrics_address is what was really bound

Everything is behind the Unix socket, which only its owner may open (mode 0600); the TCP
address tells `/metrics`, `/healthz` and `/status`, and changes nothing.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from meshd.api.handlers import Handlers, errors_as_json
from meshd.api.limits import LARGEST_BODY
from meshd.api.model import Control
from proxy.ipc import address as addresses

GOODBYE: Final = 2.0
BACKLOG: Final = 128


class ServeError(Exception):
    """An address is taken or cannot be bound; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What the server is bound to; `metrics_address` is `HOST:PORT`."""

    socket_path: Path
    metrics_address: str


@asynccontextmanager
async def serve(
    control: Control, socket_path: Path | str, metrics_address: str
) -> AsyncIterator[Serving]:
    """Serves the API until the block is left; requests under way then get two seconds.

    `metrics_address` is `HOST:PORT`; port 0 takes a free one. Raises CannotServe.
    """
    path = Path(socket_path)
    handlers = Handlers(control)
    async with AsyncExitStack() as stack:
        unix = _bind_unix(path)
        stack.callback(_unlink, path, os.stat(path).st_ino)
        stack.callback(unix.close)
        tcp = _bind_tcp(metrics_address)
        stack.callback(tcp.close)
        await _start(stack, unix, handlers.everything())
        await _start(stack, tcp, handlers.reading())
        host, port = tcp.getsockname()[:2]
        yield Serving(path, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def _start(stack: AsyncExitStack, sock: socket.socket, routes: list[web.RouteDef]) -> None:
    app = web.Application(middlewares=[errors_as_json], client_max_size=LARGEST_BODY)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock, backlog=BACKLOG).start()


def _bind_unix(path: Path) -> socket.socket:
    """A listening socket at `path`, never open to others, not even for a moment. A socket file
    that nobody answers at is left over from a killed process, and is replaced."""
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        if path.exists() and _answers(path):
            raise ServeError(f"another daemon answers at {path}; stop it or use another --state")
        path.unlink(missing_ok=True)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise ServeError(f"cannot listen at {path}: {error}") from error
    except ServeError:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(path)) == 0


def _bind_tcp(address: str) -> socket.socket:
    try:
        parsed = addresses.parse(address)
        if parsed.path:
            raise addresses.BadAddress(f"{address!r} is not HOST:PORT")
        family, where = addresses.resolve(parsed)
        sock = socket.create_server(where, family=family, backlog=BACKLOG)
    except (OSError, addresses.BadAddress) as error:
        raise ServeError(f"cannot listen at {address} for metrics: {error}") from error
    sock.setblocking(False)
    return sock


def _unlink(path: Path, inode: int) -> None:
    """Takes the socket file away, unless another process has put its own there since."""
    try:
        if os.stat(path).st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
