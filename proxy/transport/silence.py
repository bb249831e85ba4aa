"""Socket options with which the kernel notices soon that the machine of a peer is gone.

Connections to endpoints on other nodes have them; see `proxy.policy.lost_node`. Without them a
request waits for minutes, because a machine that is gone refuses nothing.
"""

import errno
import socket
from typing import Final

SILENCE: Final = 1.0
"""Seconds without an answer of its machine after which a connection is given up. The kernel repeats
a packet after 0.2 s, 0.6 s and then every second or less, so that the loss of single packets does
not count; and requests are sent elsewhere in less than 2 s."""
_OPTIONS: Final = (
    ("TCP_USER_TIMEOUT", int(SILENCE * 1000)),
    ("TCP_KEEPIDLE", int(SILENCE)),
    ("TCP_KEEPINTVL", int(SILENCE)),
)
"""Milliseconds without an acknowledgement after which a connection ends; and seconds without
traffic before the kernel asks whether the peer still exists, and between two such probes."""
_SILENT: Final = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
)
"""Errors of a connection whose peer's machine does not answer."""


def notice_silence(sock: socket.SocketType) -> None:
    """Set the options on a TCP socket, before it connects."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def is_silence(error: BaseException | None) -> bool:
    """Whether a connection ended because the peer's machine does not answer."""
    return isinstance(error, OSError) and error.errno in _SILENT
