"""The listening sockets. The supervisor alone opens them, so they outlive every worker.

A TCP address has one socket for each worker slot (SO_REUSEPORT): the kernel spreads new
connections over them, and what waits in the backlog of a dead worker is still there for its
replacement. A Unix socket cannot be had twice, so all workers share one.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from proxy.ipc import address as addresses

BACKLOG = 4096


class OpenSockets(msgspec.Struct, frozen=True):
    """Where an address is bound, and the descriptor of each worker slot's socket."""

    bound: str
    descriptors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """One open address: where it is bound, and the socket of each worker slot."""

    bound: str
    slots: tuple[socket.socket, ...]

    def export(self) -> OpenSockets:
        """The same as numbers, for a successor of this process."""
        return OpenSockets(self.bound, tuple(one.fileno() for one in self.slots))

    def close(self) -> None:
        """Give the address back. The file of a Unix socket goes too."""
        if self.bound.startswith("unix:"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.bound[len("unix:") :])
        for one in self.slots:
            one.close()


def open_address(text: str, slots: int) -> ListeningSockets:
    """Bind and listen for `slots` workers. Raises BadAddress or OSError."""
    address = addresses.parse(text)
    if address.path:
        shared = _listen_unix(address.path)
        return ListeningSockets(f"unix:{address.path}", (shared,) * slots)
    family, where = addresses.resolve(address)
    where = _claim(family, where)
    bound = str(addresses.Address(where[0], where[1]))
    return ListeningSockets(bound, tuple(_listen_tcp(family, where, slots)))


def _listen_tcp(
    family: socket.AddressFamily, where: tuple[str, int], count: int
) -> list[socket.socket]:
    """Sockets that share an address. They listen once all are bound, so that the kernel does
    not spread connections anew while they are being opened."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket(family, socket.SOCK_STREAM)
            opened.append(one)
            _prepare(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(where)
        for one in opened:
            one.listen(BACKLOG)
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def adopt(bound: str, descriptors: Sequence[int], slots: int) -> ListeningSockets:
    """Go on with sockets that are open already. Where there are too few, more join them."""
    made = {
        descriptor: socket.socket(fileno=descriptor) for descriptor in dict.fromkeys(descriptors)
    }
    have = [made[descriptor] for descriptor in descriptors]
    if bound.startswith("unix:"):
        return ListeningSockets(bound, (have[0],) * slots)
    for one in have[slots:]:
        one.close()
    more = []
    if len(have) < slots:
        more = _listen_tcp(have[0].family, have[0].getsockname()[:2], slots - len(have))
    return ListeningSockets(bound, (*have[:slots], *more))


def _prepare(one: socket.socket) -> None:
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _claim(family: socket.AddressFamily, where: tuple[str, int]) -> tuple[str, int]:
    """Where to bind, with the port chosen. Raises OSError when the address is taken.

    SO_REUSEPORT would let a second supervisor of the same user join the first one's port and
    take a share of its connections, so the address is tried without it first.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        _prepare(probe)
        probe.bind(where)
        host, port = probe.getsockname()[:2]
        return str(host), int(port)


def _listen_unix(path: str) -> socket.socket:
    """Bind to `path`, replacing the file of a socket that nobody listens on any more."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.bind(path)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED
