"""Where the program of a container listens, for a replica whose port refuses connections.

Called by `meshd.discovery.probe`. The kernel lists the listening sockets of a container's network
namespace under `/proc/PID/net`; that works where the engine runs on this host.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from meshd.model.replica import ELSEWHERE

PROCESSES: Final = Path("/proc")
LISTEN: Final = "0A"
"""State of a listening socket in the kernel's tables."""
LOOPBACK_6: Final = "00000000000000000000000001000000"
"""`::1` in the kernel's tables."""
LOOPBACK_4: Final = "7F"
"""First byte of 127.0.0.0/8, the last one in the kernel's tables; also of the same address in
IPv6, as it is mapped."""
ENGINE_NAMES: Final = "0B00007F"
"""127.0.0.11 in the kernel's tables: the engine's own name server."""
MAX_NAMED: Final = 4
"""Ports that a message names."""


def find_hint(host: str, port: int, pid: int, root: Path = PROCESSES) -> str:
    """Return where the container with the address `host` and the first process `pid` listens
    instead of on `port`, for people; empty if it cannot be known."""
    folder = root / str(pid) / "net"
    try:
        # With an engine elsewhere, the number may be that of another process of this host.
        if f"-- {host}\n" not in (folder / "fib_trie").read_text():
            return ""
        tables = [(folder / name).read_text() for name in ("tcp", "tcp6")]
    except OSError:
        return ""
    public, local = parse_listeners(tables)
    return "" if port in public else describe(port, public, local)


def parse_listeners(tables: Iterable[str]) -> tuple[Collection[int], Collection[int]]:
    """Return the ports on which programs listen for others, and those that they listen on for
    themselves only, from the kernel's tables of TCP sockets."""
    public: set[int] = set()
    local: set[int] = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if len(fields) < 4 or fields[3] != LISTEN:
                continue
            address, _, number = fields[1].partition(":")
            if address == ENGINE_NAMES:
                continue
            own = address == LOOPBACK_6 or address.endswith(LOOPBACK_4)
            (local if own else public).add(int(number, 16))
    return public, local - public


def describe(port: int, public: Collection[int], local: Collection[int]) -> str:
    """Return where a program listens instead of on `port`, for people."""
    if port in local:
        return (
            f"{ELSEWHERE} 127.0.0.1:{port} only, which nothing outside of it reaches; let the "
            "program listen on 0.0.0.0"
        )
    nothing = f"nothing listens on port {port}"
    if public:
        ports = sorted(public)
        return (
            f"{nothing}; {ELSEWHERE} {_name_ports(ports)}: let the program listen on $PORT, or set "
            f"x-mesh.port{f' to {ports[0]}' if len(ports) == 1 else ''}"
        )
    if local:
        return f"{nothing}; {ELSEWHERE} {_name_ports(sorted(local))} of 127.0.0.1 only"
    return f"{nothing}, nor on another one"


def _name_ports(ports: Sequence[int]) -> str:
    """Return ports as words, the lowest ones if there are many."""
    if len(ports) == 1:
        return f"port {ports[0]}"
    more = ", …" if len(ports) > MAX_NAMED else ""
    return f"ports {', '.join(map(str, ports[:MAX_NAMED]))}{more}"
