"""Options and calls on the sockets of TCP sessions.

`proxy.tcp.session` and `proxy.tcp.handover` use it. Sessions work on plain sockets, because the
transports of the event loop copy every byte.
"""

import errno
import os
import socket
from typing import Final

from proxy.transport.connect import RESET
from proxy.transport.silence import notice_silence
from proxy.wire.snapshot import Endpoint

_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds without traffic before the kernel asks whether a peer still exists, seconds between two
such probes, and their number. So a machine that vanished is noticed within two minutes."""


def prepare(sock: socket.socket) -> None:
    """Set the options of a session's socket."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def connect(endpoint: Endpoint) -> socket.socket:
    """Start to connect to an endpoint. The socket becomes writable when that is done; its error
    is then SO_ERROR. Raises OSError if it fails at once."""
    if endpoint.path:
        sock, where = socket.socket(socket.AF_UNIX), endpoint.path
        failed = _start(sock, where)
    else:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        sock = socket.socket(family)
        failed = _start(sock, (endpoint.host, endpoint.port), remote=bool(endpoint.node))
    if failed:
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


def _start(sock: socket.socket, where: str | tuple[str, int], *, remote: bool = False) -> int:
    """Start to connect; return the error number, 0 for none. `remote`: to another machine, which
    may be lost."""
    prepare(sock)
    if remote:
        notice_silence(sock)
    failed = sock.connect_ex(where)
    return 0 if failed == errno.EINPROGRESS else failed


def connect_error(sock: socket.socket) -> int:
    """Return the error number of a connect that has ended, 0 for success."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def close(sock: socket.socket, *, reset: bool) -> None:
    """Close a socket. With `reset` the peer sees that the connection was broken off."""
    if reset and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
