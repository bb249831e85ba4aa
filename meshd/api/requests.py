"""Reading a request: who sent it, and the names in its path. Used by all handlers of the API.

Query parameters are in `parameters`.
"""

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


def project_name(request: web.Request) -> str:
    """Return `{project}` of the path."""
    return request.match_info["project"]


def service_names(request: web.Request) -> tuple[str, str]:
    """Return `{project}` and `{service}` of the path."""
    return request.match_info["project"], request.match_info["service"]
