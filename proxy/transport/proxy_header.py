"""The PROXY protocol, versions 1 and 2: the header that names a client in front of its bytes. Pure.

`proxy.worker.proxy_header_reader` parses what trusted load balancers send;
`proxy.request.connection_pool`, `proxy.tcp.session` and the probes of `meshd.discovery` write it to
endpoints that ask for it. Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
"""

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

MAX_V1: Final = 107
"""Bytes of a header of version 1 (section 2.1)."""
MAX_V2: Final = 4096
"""Bytes of a header of version 2 after its first 16: addresses need 36, and the rest are notes of
the sender, such as the certificate of its client. HAProxy sends less than 1 KiB."""
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of version 2."""

_START: Final = struct.Struct("!12sBBH")
"""Signature, version and command, family, and length of the rest."""
_V4: Final = struct.Struct("!4s4sHH")
_V6: Final = struct.Struct("!16s16sHH")
"""Source and destination address, source and destination port."""
_TCP4, _TCP6 = 0x11, 0x21
"""Families: TCP over IPv4 and over IPv6."""
_LOCAL, _PROXY = 0x20, 0x21
"""Version 2 with the command LOCAL, for a connection of the sender itself, and with PROXY."""
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_MAX_PORT: Final = 65535
"""The largest port: 16 bits."""


class BadProxyHeader(Exception):
    """The bytes are not a PROXY header; the text says why."""


class ProxiedAddress(NamedTuple):
    """The two ends of a client's connection.

    - `host`, `port`: of the client; the host is empty if the header names none.
    - `local_host`, `local_port`: where the client connected to.
    """

    host: str
    port: int
    local_host: str = ""
    local_port: int = 0


NO_ADDRESS: Final = ProxiedAddress("", 0)


def count_own(have: bytes, following: bytes) -> int:
    """Return how many of the bytes that follow `have` belong to the header, as far as can be seen.
    0: the header is complete with `have`. Raises BadProxyHeader."""
    together = have + following
    if not together:
        return 0
    if together[:1] == b"P":
        return _count_own_v1(have, following)
    length = min(len(together), len(SIGNATURE))
    if together[:length] != SIGNATURE[:length]:
        raise BadProxyHeader("it begins with something else")
    end = _START.size
    if len(have) >= end:
        rest = int(_START.unpack_from(have)[3])
        if rest > MAX_V2:
            raise BadProxyHeader("it is too long")
        end += rest
    return min(end - len(have), len(following))


def _count_own_v1(have: bytes, following: bytes) -> int:
    if have.endswith(b"\n"):
        return 0
    end = following.find(b"\n") + 1
    own = end or len(following)
    start = b"PROXY "
    length = min(len(have) + own, len(start))
    if (have + following)[:length] != start[:length]:
        raise BadProxyHeader("it begins with something else")
    if len(have) + own > MAX_V1 or (not end and len(have) + own == MAX_V1):
        raise BadProxyHeader("it is too long")
    return own


def is_complete(header: bytes) -> bool:
    """Return whether bytes that `count_own` selected are a whole header."""
    if header.startswith(b"P"):
        return header.endswith(b"\n")
    if len(header) < _START.size:
        return False
    return len(header) == _START.size + int(_START.unpack_from(header)[3])


def parse_header(header: bytes) -> ProxiedAddress:
    """Return the addresses in a whole header; NO_ADDRESS if it names none. Raises
    BadProxyHeader."""
    return _parse_v1(header) if header.startswith(b"P") else _parse_v2(header)


def _parse_v1(header: bytes) -> ProxiedAddress:
    if not header.endswith(b"\r\n") or len(header) > MAX_V1:
        raise BadProxyHeader("its line does not end as it should")
    words = header[:-2].split(b" ")
    if words[0] != b"PROXY" or len(words) < 2:
        raise BadProxyHeader("it begins with something else")
    if words[1] == b"UNKNOWN":
        return NO_ADDRESS
    kinds: dict[bytes, type[IPv4Address] | type[IPv6Address]]
    kinds = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
    kind = kinds.get(words[1])
    if kind is None or len(words) != 6:
        raise BadProxyHeader("it does not name a protocol, two addresses and two ports")
    try:
        source, local = kind(words[2].decode("ascii")), kind(words[3].decode("ascii"))
    except ValueError:
        raise BadProxyHeader("it names no address of the family that it says") from None
    if b"%" in words[2] + words[3]:
        raise BadProxyHeader("it names an address with a zone")
    ports = [int(word) if _PORT.fullmatch(word) else -1 for word in words[4:]]
    if not all(0 <= port <= _MAX_PORT for port in ports):
        raise BadProxyHeader("it names something else than a port")
    return ProxiedAddress(_format(source), ports[0], _format(local), ports[1])


def _parse_v2(header: bytes) -> ProxiedAddress:
    if len(header) < _START.size:
        raise BadProxyHeader("it is too short")
    signature, command, family, length = _START.unpack_from(header)
    if signature != SIGNATURE:
        raise BadProxyHeader("it begins with something else")
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("its version or command is unknown")
    rest = header[_START.size :]
    if len(rest) != length or length > MAX_V2:
        raise BadProxyHeader("its length is not what it says")
    if command == _LOCAL:
        return NO_ADDRESS
    addresses = {_TCP4: _V4, _TCP6: _V6}.get(family)
    if addresses is None:
        # Unix sockets, and what is not specified: the connection's own address applies (2.2).
        return NO_ADDRESS
    if length < addresses.size:
        raise BadProxyHeader("it is too short for its addresses")
    client, own, port, own_port = addresses.unpack_from(rest)
    return ProxiedAddress(_format(ip_address(client)), port, _format(ip_address(own)), own_port)


def _format(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text, an IPv4 address in IPv6 form as IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def build_header(version: str, address: ProxiedAddress = NO_ADDRESS) -> bytes:
    """Return the header of `version`, `v1` or `v2`, for a client. Without an address it says that
    the connection is one of the proxy itself, as for probes."""
    pair = _pair(address)
    if version == "v1":
        if pair is None:
            return b"PROXY UNKNOWN\r\n"
        kind = "TCP4" if isinstance(pair[0], IPv4Address) else "TCP6"
        text = f"PROXY {kind} {pair[0]} {pair[1]} {address.port} {address.local_port}\r\n"
        return text.encode()
    if pair is None:
        return _START.pack(SIGNATURE, _LOCAL, 0, 0)
    is_v4 = isinstance(pair[0], IPv4Address)
    rest = (_V4 if is_v4 else _V6).pack(
        pair[0].packed, pair[1].packed, address.port, address.local_port
    )
    family = _TCP4 if is_v4 else _TCP6
    return _START.pack(SIGNATURE, _PROXY, family, len(rest)) + rest


def _pair(
    address: ProxiedAddress,
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    """Return both addresses in the same family; None if the client has none."""
    try:
        source = ip_address(address.host.partition("%")[0])
    except ValueError:
        return None
    try:
        local = ip_address(address.local_host.partition("%")[0])
    except ValueError:
        local = IPv4Address(0) if isinstance(source, IPv4Address) else IPv6Address(0)
    if isinstance(source, IPv4Address) and isinstance(local, IPv4Address):
        return source, local
    return _as_v6(source), _as_v6(local)


def _as_v6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
