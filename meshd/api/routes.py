"""A route of the API: the request that it takes, its handler, and who may send it.

`route_table` lists all routes, `server` mounts them, `openapi` describes them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from meshd.api.parameters import Parameter
from meshd.model.access import Role

BoundHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"
TAR: Final = "application/x-tar"
SHUTDOWN: Final = "/v1/shutdown"
"""Path that also works where nothing may be changed."""
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One operation.

    - `path`: with the path parameters in braces.
    - `handler`: the method of a handler class, not bound to an instance.
    - `role`: the lowest role that may use it. Routes of the role `view` change nothing.
    - `summary`: one sentence, for the description.
    - `response`: type of the response; None: it has no JSON.
    - `body`, `body_media`: type and media type of the request's body; None: it has none.
    - `media`: media type of the response.
    - `streams`: type of the values that `follow=1` streams; None: it has no stream.
    - `paged`: whether a `Link` header leads to the next page.
    - `filtered`: whether a caller for one project gets the part of the response about it. Other
      routes without a project in their path are not for these callers.
    """

    method: str
    path: str
    handler: Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
    role: Role
    summary: str
    response: Any = None
    status: int = 200
    query: tuple[Parameter, ...] = ()
    body: Any = None
    body_media: str = JSON
    media: str = JSON
    streams: Any = None
    paged: bool = False
    filtered: bool = False
