"""Options and calls on the sockets of TCP sessions.

`proxy.tcp.session` uses it. Sessions work on plain sockets, because the transports of the event
loop copy every byte. They are objects of `socket.SocketType`, the base class in C, which has the
same methods and computes nothing in Python. Each system call counts where a connection carries one
message, so that options which matter only for long connections are set later.
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
such probes, and their number. So a machine that vanished is noticed after about two minutes."""
_UNIX: Final = int(socket.AF_UNIX)
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM)
_NON_BLOCKING: Final = int(getattr(socket, "SOCK_NONBLOCK", 0))
_TCP: Final = int(socket.IPPROTO_TCP)
_NO_DELAY: Final = int(socket.TCP_NODELAY)
_TCP_INFO: Final = int(getattr(socket, "TCP_INFO", 0))
_ESTABLISHED: Final = b"\1"
"""TCP_ESTABLISHED, the state of an open connection (Linux, net/tcp_states.h)."""


def keep_alive(sock: socket.SocketType, *, remote: bool = False) -> None:
    """Have the kernel notice that the peer's machine has vanished. `remote`: `connect` has done
    that already, with shorter times."""
    if remote or sock.family == _UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def connect(endpoint: Endpoint) -> socket.SocketType:
    """Start to connect to an endpoint. The socket becomes writable when that is done; its error
    is then SO_ERROR. Raises OSError if it fails at once."""
    if endpoint.path:
        sock = _create(_UNIX)
        failed = sock.connect_ex(endpoint.path)
    else:
        sock = _create(_IPV6 if ":" in endpoint.host else _IPV4)
        sock.setsockopt(_TCP, _NO_DELAY, 1)
        if endpoint.node:
            # On another machine, which may be lost.
            notice_silence(sock)
        failed = sock.connect_ex((endpoint.host, endpoint.port))
    if failed and failed != errno.EINPROGRESS:
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


def _create(family: int) -> socket.SocketType:
    """Return a socket that does not block."""
    sock = socket.SocketType(family, _STREAM | _NON_BLOCKING)
    if not _NON_BLOCKING:
        sock.setblocking(False)
    return sock


def is_connected(sock: socket.SocketType, endpoint: Endpoint) -> bool:
    """Return whether a connect is done already, as it mostly is on the same machine. Its error is
    left to `connect_error`."""
    if endpoint.path:
        return True
    if endpoint.node or not _TCP_INFO:
        return False
    return sock.getsockopt(_TCP, _TCP_INFO, 1) == _ESTABLISHED


def connect_error(sock: socket.SocketType) -> int:
    """Return the error number of a connect that has ended, 0 for success."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def close(sock: socket.SocketType, *, reset: bool) -> None:
    """Close a socket. With `reset` the peer sees that the connection was broken off."""
    if reset and sock.family != _UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
