"""Serve the API at a Unix socket and the read-only part of it at a TCP address.

    async with serve(control, state / "admin.sock", "127.0.0.1:9900") as serving:
        ...                       # serving.metrics_address is the address that was bound

Started by `meshd.daemon.wiring`; `route_table` lists the requests and their
handlers. Only its owner may open
the Unix socket (mode 0600). The address of `--metrics` serves `/metrics`, `/healthz` and `/status`
to everyone, and that of `--api` all routes to callers with a token or a client certificate.
"""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from meshd.api.access import TcpGuard
from meshd.api.limits import MAX_BODY_BYTES
from meshd.api.port import Control
from meshd.api.problems import errors_as_problems
from meshd.api.route_table import PUBLIC_ROUTES, bind
from meshd.api.routes import ApiRoute, BoundHandler
from meshd.api.tcp_address import ServeError, TcpSettings, load_tls
from proxy.ipc import address as addresses

SHUTDOWN_SECONDS: Final = 2.0
"""Seconds that open requests get to finish when the server stops."""
BACKLOG: Final = 128
"""Connections that the kernel queues, the customary value of listen(2)."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The addresses that the server is bound to, as `HOST:PORT`; `tcp_address` is empty if the API
    has none."""

    socket_path: Path
    metrics_address: str
    tcp_address: str = ""


@asynccontextmanager
async def serve(
    control: Control, socket_path: Path | str, metrics_address: str, tcp: TcpSettings | None = None
) -> AsyncIterator[Serving]:
    """Serve the API until the end of the block; open requests then get two seconds to finish.

    `metrics_address` is `HOST:PORT`; port 0 picks a free port. With `tcp` the API is served at a
    TCP address as well. Raises ServeError.
    """
    path = Path(socket_path)
    routes = bind(control)
    async with AsyncExitStack() as stack:
        unix = _bind_unix(path)
        stack.callback(_unlink, path, os.stat(path).st_ino)
        stack.callback(unix.close)
        metrics = bind_tcp(metrics_address, "metrics")
        stack.callback(metrics.close)
        public = [(route, bound) for route, bound in routes if route in PUBLIC_ROUTES]
        await _start(stack, unix, routes)
        await _start(stack, metrics, public)
        address = ""
        if tcp is not None:
            context, names = load_tls(tcp)
            bound = bind_tcp(tcp.address, "the API")
            stack.callback(bound.close)
            guard = TcpGuard(control.access_control(), names)
            await _start(stack, bound, routes, guard, context)
            address = address_of(bound)
        yield Serving(path, address_of(metrics), address)


async def _start(
    stack: AsyncExitStack,
    sock: socket.socket,
    routes: Sequence[tuple[ApiRoute, BoundHandler]],
    guard: TcpGuard | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    steps = [errors_as_problems, *([guard.check] if guard else ())]
    app = web.Application(middlewares=steps, client_max_size=MAX_BODY_BYTES)
    add_routes(app, routes)
    await start_server(stack, app, sock, tls)


def add_routes(app: web.Application, routes: Sequence[tuple[ApiRoute, BoundHandler]]) -> None:
    """Add routes of the API to an application. A GET route also takes HEAD."""
    for route, handler in routes:
        options = {"allow_head": True} if route.method == "GET" else {}
        app.router.add_routes([web.RouteDef(route.method, route.path, handler, options)])


async def start_server(
    stack: AsyncExitStack, app: web.Application, sock: socket.socket, tls: ssl.SSLContext | None
) -> None:
    """Serve an application at a bound socket until the end of `stack`."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock, backlog=BACKLOG, ssl_context=tls).start()


def address_of(sock: socket.socket) -> str:
    """Return the address that a TCP socket is bound to, as `HOST:PORT`."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def bind_tcp(address: str, purpose: str) -> socket.socket:
    """Return a socket that listens at `HOST:PORT`; `purpose` is for the error. Raises
    ServeError."""
    try:
        parsed = addresses.parse(address)
        if parsed.path:
            raise addresses.BadAddress(f"{address!r} is not HOST:PORT")
        family, where = addresses.resolve(parsed)
        sock = socket.create_server(where, family=family, backlog=BACKLOG)
    except (OSError, addresses.BadAddress) as error:
        raise ServeError(f"cannot listen at {address} for {purpose}: {error}") from error
    sock.setblocking(False)
    return sock


def _unlink(path: Path, inode: int) -> None:
    """Remove the socket file unless another process has replaced it since."""
    try:
        if os.stat(path).st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
