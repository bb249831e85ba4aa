"""Helpers for tests of a service's and a route's policies, on top of `proxy_scene`."""

from proxy.wire.snapshot import Route, Target
from tests.support.proxy_scene import Scene, Visit

BAD = b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"


async def close_after_request(visit: Visit) -> None:
    """An origin that reads a request and closes the connection."""
    await visit.head()


def route(target: str = "shop", **more: object) -> Route:
    """Return a route to one service, by default for every path and host."""
    return Route(
        id=f"r{more.get('path', '/')}{more.get('host', '*')}", targets=(Target(target),), **more
    )  # type: ignore[arg-type]


def service_report(s: Scene, name: str = "shop") -> object:
    """Return the report that the worker would send about a service now."""
    report = s.plane.report(0.0, 1.0)
    return next(found for found in report.services if found.name == name)
