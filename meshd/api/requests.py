"""Reading a request: who sent it, and the names in its path. Used by all handlers of the API.

Query parameters are in `parameters`.
"""

import pwd
import socket
import struct
from typing import Final

from aiohttp import web

from meshd.model.access import Identity, Role

_UCRED: Final = struct.Struct("3i")
"""`struct ucred` of unix(7): pid, uid, gid."""


CALLER: Final = web.RequestKey("caller", Identity)
"""Where the guard of the TCP address leaves the caller."""


def identity(request: web.Request) -> Identity:
    """Return who sent a request: the caller that the guard of the TCP address found, or the user
    at the other end of the Unix socket, who is its owner or root."""
    found = request.get(CALLER)
    return found or Identity(_socket_user(request), Role.ADMIN)


def caller(request: web.Request) -> str:
    """Return the name of the caller, for events and messages."""
    return identity(request).who


def visible(request: web.Request, project: str) -> bool:
    """Whether the caller may see a project."""
    return identity(request).project in ("", project)


def _socket_user(request: web.Request) -> str:
    """Return the user at the other end of the Unix socket, as the kernel reports it."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or connection.family != socket.AF_UNIX:
        return "unknown"
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid = _UCRED.unpack(raw)[1]
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def project_name(request: web.Request) -> str:
    """Return `{project}` of the path."""
    return request.match_info["project"]


def service_names(request: web.Request) -> tuple[str, str]:
    """Return `{project}` and `{service}` of the path."""
    return request.match_info["project"], request.match_info["service"]
