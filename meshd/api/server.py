"""Serve the API at a Unix socket and the read-only part of it at a TCP address.

    async with serve(control, state / "admin.sock", "127.0.0.1:9900") as serving:
        ...                       # serving.metrics_address is the address that was bound

Started by `meshd.daemon.wiring`; `route_table` lists the requests and their
handlers. Only its owner may open
the Unix socket (mode 0600). The TCP address serves `/metrics`, `/healthz` and `/status`.
"""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from meshd.api.limits import MAX_BODY_BYTES
from meshd.api.port import Control
from meshd.api.problems import errors_as_problems
from meshd.api.route_table import PUBLIC_ROUTES, bind
from meshd.api.routes import ApiRoute, BoundHandler
from proxy.ipc import address as addresses

SHUTDOWN_SECONDS: Final = 2.0
"""Seconds that open requests get to finish when the server stops."""
BACKLOG: Final = 128
"""Connections that the kernel queues, the customary value of listen(2)."""


class ServeError(Exception):
    """An address is in use or cannot be bound; the text names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The addresses that the server is bound to; `metrics_address` is `HOST:PORT`."""

    socket_path: Path
    metrics_address: str


@asynccontextmanager
async def serve(
    control: Control, socket_path: Path | str, metrics_address: str
) -> AsyncIterator[Serving]:
    """Serve the API until the end of the block; open requests then get two seconds to finish.

    `metrics_address` is `HOST:PORT`; port 0 picks a free port. Raises ServeError.
    """
    path = Path(socket_path)
    routes = bind(control)
    async with AsyncExitStack() as stack:
        unix = _bind_unix(path)
        stack.callback(_unlink, path, os.stat(path).st_ino)
        stack.callback(unix.close)
        tcp = _bind_tcp(metrics_address)
        stack.callback(tcp.close)
        await _start(stack, unix, routes)
        await _start(stack, tcp, [each for each in routes if each[0] in PUBLIC_ROUTES])
        host, port = tcp.getsockname()[:2]
        yield Serving(path, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def _start(
    stack: AsyncExitStack, sock: socket.socket, routes: Sequence[tuple[ApiRoute, BoundHandler]]
) -> None:
    app = web.Application(middlewares=[errors_as_problems], client_max_size=MAX_BODY_BYTES)
    for route, handler in routes:
        # A GET route also takes HEAD.
        options = {"allow_head": True} if route.method == "GET" else {}
        app.router.add_routes([web.RouteDef(route.method, route.path, handler, options)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock, backlog=BACKLOG).start()


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket bound at `path`, at no time accessible to other users. Replaces a socket
    file that no process listens on: a killed daemon left it behind."""
    sock = socket.socket(socket.AF_UNIX)
    old_umask = os.umask(0o177)
    try:
        if path.exists() and _accepts_connections(path):
            raise ServeError(
                f"another daemon answers at {path}; stop it or use a different --state"
            )
        path.unlink(missing_ok=True)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise ServeError(f"cannot listen at {path}: {error}") from error
    except ServeError:
        sock.close()
        raise
    finally:
        os.umask(old_umask)
    sock.setblocking(False)
    return sock


def _accepts_connections(path: Path) -> bool:
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
    """Remove the socket file unless another process has replaced it since."""
    try:
        if os.stat(path).st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
