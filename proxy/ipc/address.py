"""Addresses in text form: `HOST:PORT`, `[V6]:PORT`, `:PORT`, `unix:PATH`.

Used by `sockets` and by the control plane for every address in a configuration.
"""

import socket
from dataclasses import dataclass
from typing import Final

_ANY_PORT: Final = 9
"""Of the service `discard`; any port does."""


class BadAddress(ValueError):
    """The text is not a valid address; the message shows the expected form."""


@dataclass(frozen=True, slots=True)
class Address:
    """Either a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Parse an address. Raises BadAddress."""
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise BadAddress(f"{text!r}: a path must follow 'unix:'")
        return Address(path=text[len("unix:") :])
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadAddress(f"{text!r} is not HOST:PORT, [V6]:PORT or unix:PATH")
    if ":" in host and not bracketed:
        raise BadAddress(f"{text!r}: write an IPv6 address in brackets, as in [::1]:8080")
    return Address(host=host[1:-1] if bracketed else host, port=int(port))


def resolve(address: Address) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return the family and numeric address to bind; an empty host or `*` means 0.0.0.0.

    Raises OSError if a name cannot be resolved.
    """
    host = "0.0.0.0" if address.host in ("", "*") else address.host
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    family, _, _, _, where = found[0]
    return family, (str(where[0]), int(where[1]))


def is_own_address(host: str) -> bool:
    """Return whether an IP address is one of this host's, whatever the interface.

    The kernel reaches those from the address itself; nothing is sent.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, _ANY_PORT))
            # All of 127.0.0.0/8 is reached from 127.0.0.1, and nothing else is.
            return str(probe.getsockname()[0]) in (host, "127.0.0.1")
    except OSError:
        return False
