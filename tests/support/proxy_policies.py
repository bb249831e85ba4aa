"""What scenes of a service's and a route's policies are made of."""

import socket

from proxy.wire.snapshot import Route, Target
from tests.support.proxy_scene import Scene, Visit

BAD = b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"


async def slam(visit: Visit) -> None:
    """An origin that reads a request and closes."""
    await visit.head()


def named(name: bytes) -> bytes:
    """An answer whose body says who gave it."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def route(target: str = "shop", **more: object) -> Route:
    """A route to one service, for every path and host where nothing else is said."""
    return Route(
        id=f"r{more.get('path', '/')}{more.get('host', '*')}", targets=(Target(target),), **more
    )  # type: ignore[arg-type]


def figures(s: Scene, name: str = "shop") -> object:
    """What the worker would report of a service now."""
    report = s.plane.report(0.0, 1.0)
    return next(found for found in report.services if found.name == name)
