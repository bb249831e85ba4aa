"""Reading a request: who sent it, and its query parameters. Used by all handlers of the API."""

import pwd
import socket
import struct
from typing import Final

from aiohttp import web

_UCRED: Final = struct.Struct("3i")
"""`struct ucred` of unix(7): pid, uid, gid."""


def caller(request: web.Request) -> str:
    """Return the name of the user at the other end of the Unix socket, as the kernel reports it."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or connection.family != socket.AF_UNIX:
        return "unknown"
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid = _UCRED.unpack(raw)[1]
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def parse_number(request: web.Request, name: str, default: int, maximum: int) -> int:
    """Return the query parameter `name` as a whole number of at least 0.

    Raises HTTPBadRequest if it is not a number or is above `maximum`.
    """
    text = request.query.get(name, str(default))
    if not text.isdecimal() or int(text) > maximum:
        raise web.HTTPBadRequest(
            text=f"{name}={text!r} is not valid; expected a whole number from 0 to {maximum}"
        )
    return int(text)


def is_set(request: web.Request, name: str) -> bool:
    """Whether the query parameter `name` is 1. Raises HTTPBadRequest if it is neither 0 nor 1."""
    text = request.query.get(name, "0")
    if text not in ("0", "1"):
        raise web.HTTPBadRequest(text=f"{name}={text!r} is not valid; expected 0 or 1")
    return text == "1"


def project_name(request: web.Request) -> str:
    """Return `{project}` of the path."""
    return request.match_info["project"]


def service_names(request: web.Request) -> tuple[str, str]:
    """Return `{project}` and `{service}` of the path."""
    return request.match_info["project"], request.match_info["service"]
