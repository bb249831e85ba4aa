"""Run iptables and ip: check that they are usable, list and change rules and routes.

A thin shell for `host_firewall`, `redirection` and `enforcement`: each command has a time limit,
and errors carry its own text.
"""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from meshd.runtime import child_process
from meshd.runtime.docker.firewall_rules import Family

PATIENCE: Final = 10.0
"""Seconds that one command may take."""
LOCK_SECONDS: Final = "5"
"""Seconds that iptables waits for another process that changes the rules."""
_SYSTEM: Final = ":/usr/local/sbin:/usr/sbin:/sbin"
_PREFIX: Final[dict[Family, str]] = {"IPv4": "iptables", "IPv6": "ip6tables"}
BRIDGE_SETTINGS: Final = Path("/proc/sys/net/bridge")
"""Exists while the kernel's module br_netfilter is loaded."""
_CAP_NET_ADMIN: Final = 12
"""Bit number, from <linux/capability.h>."""
_LISTEN: Final = "0A"
"""State of a listening socket in /proc/net/tcp (TCP_LISTEN in <net/tcp_states.h>)."""
_NOT_CONNECTED: Final = (_LISTEN, "06", "07")
"""States of sockets that no longer send or receive: the others are TIME_WAIT and CLOSE."""


class IptablesError(Exception):
    """The rules cannot be applied; the text says why."""


class Iptables:
    """The rules of this process's network namespace."""

    def families(self) -> Sequence[Family]:
        """The IP versions that are filtered."""
        try:
            return ("IPv4", "IPv6") if Path("/proc/net/if_inet6").read_text() else ("IPv4",)
        except OSError:
            return ("IPv4",)

    def check(self, interfaces: Iterable[str]) -> None:
        """Check that rules for these interfaces take effect here. Raises IptablesError."""
        if sys.platform != "linux":
            raise IptablesError("needs Linux")
        if not _has_net_admin():
            raise IptablesError("needs root (CAP_NET_ADMIN)")
        here = self.interfaces()
        wanted = set(interfaces)
        if wanted and not wanted & here:  # a single one may just have been removed
            raise IptablesError(
                "the engine's networks are not in meshd's network namespace "
                f"(no interface {min(wanted)} here)"
            )

    def interfaces(self) -> set[str]:
        """Return the interfaces of this network namespace."""
        return {name for _, name in socket.if_nameindex()}

    async def listing(self, family: Family) -> str:
        """Return all chains and rules of the filter table. Raises IptablesError."""
        return await _run(_PREFIX[family], "-w", LOCK_SECONDS, "-S")

    async def nat_listing(self, family: Family) -> str:
        """Return all chains and rules of the table `nat`. Raises IptablesError."""
        return await _run(_PREFIX[family], "-w", LOCK_SECONDS, "-t", "nat", "-S")

    def listening_ports(self) -> set[int]:
        """Return the TCP ports on which something of this network namespace listens."""
        return {port for port, state in _sockets() if state == _LISTEN}

    def connected_ports(self) -> set[int]:
        """Return the local TCP ports of this network namespace's connections."""
        return {port for port, state in _sockets() if state not in _NOT_CONNECTED}

    async def mangle_listing(self, family: Family) -> str:
        """Return all chains and rules of the table `mangle`. Raises IptablesError."""
        return await _run(_PREFIX[family], "-w", LOCK_SECONDS, "-t", "mangle", "-S")

    def filter_bridge(self, interface: str, family: Family) -> None:
        """Let packets between the ports of a bridge pass iptables. Raises IptablesError."""
        suffix = "iptables" if family == "IPv4" else "ip6tables"
        try:
            if (BRIDGE_SETTINGS / f"bridge-nf-call-{suffix}").read_text().strip() != "0":
                return
            setting = Path("/sys/class/net") / interface / "bridge" / f"nf_call_{suffix}"
            if setting.read_text().strip() == "0":
                setting.write_text("1")
        except FileNotFoundError as error:
            if not BRIDGE_SETTINGS.exists():
                raise IptablesError(
                    "the kernel does not filter packets between containers of one network; load "
                    "its module: modprobe br_netfilter"
                ) from error
        except OSError as error:
            raise IptablesError(
                f"packets between containers of one network are not filtered: {error}; set "
                f"net.bridge.bridge-nf-call-{suffix}=1"
            ) from error

    async def restore_nat(self, text: str) -> None:
        """Apply an IPv4 table, all of it or nothing; other chains stay. Raises IptablesError."""
        await self.restore("IPv4", text)

    async def local_routes(self) -> str:
        """Return the local IPv4 routes. Raises IptablesError."""
        return await _run("ip", "-4", "route", "show", "table", "local", "type", "local")

    async def change_route(self, verb: str, block: str, interface: str) -> None:
        """Add (`replace`) or remove (`del`) a local route. Raises IptablesError."""
        await _run("ip", "route", verb, "local", block, "dev", interface, "table", "local")

    async def restore(self, family: Family, text: str) -> None:
        """Apply a table, all of it or nothing; other chains stay. Raises IptablesError."""
        await _run(f"{_PREFIX[family]}-restore", "-w", LOCK_SECONDS, "--noflush", given=text)


def _sockets() -> Iterator[tuple[int, str]]:
    """Yield local port and state of each TCP socket of this network namespace."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            yield int(columns[1].rpartition(":")[2], 16), columns[3]


def _has_net_admin() -> bool:
    """Return whether this process has CAP_NET_ADMIN."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


async def _run(name: str, *arguments: str, given: str = "") -> str:
    """Run a command and return its output. Raises IptablesError."""
    program = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SYSTEM)
    if program is None:
        raise IptablesError(f"{name} is not installed")
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise IptablesError(f"{name}: {error}") from error
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(given.encode())
    except TimeoutError as error:
        raise IptablesError(f"{name} did not finish within {PATIENCE:g} s") from error
    finally:
        await child_process.end(process)
    if process.returncode:
        said = " ".join(err.decode(errors="replace").split())[:300]
        raise IptablesError(f"{name}: {said or f'exit code {process.returncode}'}")
    return out.decode(errors="replace")
