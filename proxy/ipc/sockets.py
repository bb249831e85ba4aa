"""Listening sockets. Only the supervisor opens them, so they outlive every worker.

Used by `proxy.supervisor`. A TCP address has one socket per worker slot (SO_REUSEPORT): the kernel
spreads new connections over them, and the backlog of a worker that died is accepted by its
replacement. A Unix socket can be bound only once, so all workers share it.
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
"""Connections that wait to be accepted, per socket (the kernel's default maximum, somaxconn)."""


class OpenSockets(msgspec.Struct, frozen=True):
    """An open address by number: where it is bound, and the descriptor of each slot's socket.

    Sent to the next version in an upgrade, so field names are a contract.
    """

    bound: str
    descriptors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """An open address: where it is bound, and the socket of each worker slot."""

    bound: str
    slots: tuple[socket.socket, ...]

    def export(self) -> OpenSockets:
        """Return the sockets by number, for an upgrade."""
        return OpenSockets(self.bound, tuple(one.fileno() for one in self.slots))

    def close(self) -> None:
        """Close the sockets; remove the file of a Unix socket."""
        if self.bound.startswith("unix:"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.bound[len("unix:") :])
        for one in self.slots:
            one.close()


def open_address(text: str, slots: int, mode: int | None = None) -> ListeningSockets:
    """Bind and listen, with sockets for `slots` workers; `mode` as for `set_mode`.

    Raises BadAddress or OSError.
    """
    address = addresses.parse(text)
    if address.path:
        shared = _listen_unix(address.path, mode)
        return ListeningSockets(f"unix:{address.path}", (shared,) * slots)
    family, where = addresses.resolve(address)
    where = _reserve(family, where)
    bound = str(addresses.Address(where[0], where[1]))
    return ListeningSockets(bound, tuple(_listen_tcp(family, where, slots)))


def _listen_tcp(
    family: socket.AddressFamily, where: tuple[str, int], count: int
) -> list[socket.socket]:
    """Open sockets that share an address.

    They start to listen after all are bound, so that the kernel does not assign connections to a
    changing set of sockets.
    """
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
    """Take over open sockets. Open more if there are fewer than `slots`, close the surplus."""
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


def _reserve(family: socket.AddressFamily, where: tuple[str, int]) -> tuple[str, int]:
    """Return the address to bind, with the port chosen. Raises OSError if it is in use.

    With SO_REUSEPORT a second supervisor of the same user could bind the same port and get a share
    of the connections. So the address is first tried without it.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        _prepare(probe)
        probe.bind(where)
        host, port = probe.getsockname()[:2]
        return str(host), int(port)


def set_mode(bound: str, mode: int | None) -> None:
    """Set the permission bits of a Unix socket's file, which decide who may connect. None, and any
    other address, changes nothing. Raises OSError."""
    if mode is not None and bound.startswith("unix:"):
        os.chmod(bound[len("unix:") :], mode)


def _listen_unix(path: str, mode: int | None) -> socket.socket:
    """Listen on `path`; replace the file of a socket that no process listens on."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _is_listening(path):
            os.unlink(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.bind(path)
        # No client can connect before it listens.
        set_mode(f"unix:{path}", mode)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def _is_listening(path: str) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED
