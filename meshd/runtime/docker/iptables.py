"""iptables on this machine: whether it can be used here, and a chain of rules put in place.

Thin: each command gets its time and no more, and what goes wrong is told in its own words.
"""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from meshd.runtime.docker.firewall_rules import Family

PATIENCE: Final = 10.0
LOCK_SECONDS: Final = "5"
"""How long iptables waits for somebody else who is changing the rules."""
_SYSTEM: Final = ":/usr/local/sbin:/usr/sbin:/sbin"
_PREFIX: Final[dict[Family, str]] = {"IPv4": "iptables", "IPv6": "ip6tables"}
_CAP_NET_ADMIN: Final = 12


class IptablesError(Exception):
    """The rules cannot be put in place; the text says why."""


class Iptables:
    """The rules of the network namespace that we run in."""

    def families(self) -> Sequence[Family]:
        """What traffic there can be."""
        try:
            return ("IPv4", "IPv6") if Path("/proc/net/if_inet6").read_text() else ("IPv4",)
        except OSError:
            return ("IPv4",)

    def check(self, interfaces: Iterable[str]) -> None:
        """See that rules for these interfaces would be of use here. Raises CannotFilter."""
        if sys.platform != "linux":
            raise IptablesError("that takes Linux")
        if not _may():
            raise IptablesError("that takes root (CAP_NET_ADMIN)")
        here = self.interfaces()
        wanted = set(interfaces)
        if wanted and not wanted & here:  # one alone may just have been removed
            raise IptablesError(
                f"the engine's networks are not where meshd runs (no interface {min(wanted)} here)"
            )

    def interfaces(self) -> set[str]:
        """Those of our network namespace."""
        return {name for _, name in socket.if_nameindex()}

    async def listing(self, family: Family) -> str:
        """All chains and rules of the filter table. Raises CannotFilter."""
        return await _ran(_PREFIX[family], "-w", LOCK_SECONDS, "-S")

    async def restore(self, family: Family, text: str) -> None:
        """Put a table's text in place, all of it or nothing, beside what is there. Raises
        CannotFilter."""
        await _ran(f"{_PREFIX[family]}-restore", "-w", LOCK_SECONDS, "--noflush", given=text)


def _may() -> bool:
    """Whether we have CAP_NET_ADMIN."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


async def _ran(name: str, *arguments: str, given: str = "") -> str:
    """What the command says. Raises CannotFilter."""
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
        raise IptablesError(f"{name} did not end in {PATIENCE:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = " ".join(err.decode(errors="replace").split())[:300]
        raise IptablesError(f"{name}: {said or f'ended with code {process.returncode}'}")
    return out.decode(errors="replace")
