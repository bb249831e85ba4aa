"""iptables rules for what containers of the mesh's networks reach on their host. Pure.

Used by `host_firewall`. Each mesh instance has one chain; INPUT jumps to it. Every rule in it is
for packets from a bridge of ours or to our addresses on one, so other traffic of the host passes
unmatched. Accepted packets RETURN, so that the host's own rules still apply.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshd.model.runtime import MESH_PORT, VIRTUAL_PORT

Family = Literal["IPv4", "IPv6"]
_OURS: Final = re.compile("MESHD-[0-9a-f]{12}")
_FROM_HOST: Final = "-i lo -j RETURN"
_NOT_FROM_THERE: Final = "-m addrtype ! --dst-type LOCAL --limit-iface-in -m comment"
"""Matches packets to an address that is not of the interface where they arrive. The comment names
the interface that has it."""
_UNREACHABLE: Final = {"IPv4": "icmp-port-unreachable", "IPv6": "icmp6-port-unreachable"}


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network of ours on the host.

    - `interface`: name of the bridge.
    - `gateway`: the host's IPv4 address on it.
    - `internal`: whether the network has no route to the outside.
    - `block`: its part for virtual addresses, in CIDR notation; empty for none.
    """

    interface: str
    gateway: str
    internal: bool
    block: str = ""


@dataclass(frozen=True, slots=True)
class BlockedPort:
    """A TCP port of the daemon that no container may reach. `host` is its listen address; empty
    for all addresses."""

    host: str
    port: int


def chain_of(instance: str) -> str:
    """Return the chain name of a mesh instance. iptables allows 28 characters."""
    return f"MESHD-{instance[:12]}"


def blocked_port_of(address: str) -> BlockedPort | None:
    """Return the port to block for a server at `HOST:PORT`; None if containers cannot reach it."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if host == "::1" or host.startswith("127."):
        return None
    return BlockedPort("" if host in ("0.0.0.0", "::") else host, int(port))


def rules(
    bridges: Sequence[Bridge], blocked_ports: Sequence[BlockedPort], family: Family
) -> list[str]:
    """Return the chain's rules, without the chain name.

    A virtual address is an address of the host, whose services must not answer there: connections
    that are not redirected to the mesh, and UDP, are refused. An internal network reaches the mesh
    at the gateway's ports, and connections that the host opened continue. No network reaches the
    `blocked_ports`. Gateways and virtual addresses are reached from their own network and from the
    host itself: Linux takes packets for any of its addresses on every interface.
    """
    found: list[str] = []
    if family == "IPv4":
        found += [
            f"-d {address} {_NOT_FROM_THERE} --comment {bridge.interface} -j DROP"
            for bridge in sorted(bridges, key=lambda each: each.interface)
            for address in (bridge.gateway and f"{bridge.gateway}/32", bridge.block)
            if address
        ]
        found[:0] = [_FROM_HOST] if found else []
    for bridge in sorted(bridges, key=lambda each: each.interface):
        come = f"-i {bridge.interface}"
        if family == "IPv4" and bridge.block:
            found.append(f"-d {bridge.block} {come} -p tcp -j REJECT --reject-with tcp-reset")
            found.append(
                f"-d {bridge.block} {come} -p udp -j REJECT --reject-with {_UNREACHABLE[family]}"
            )
        if not bridge.internal:
            found += [
                f"{come} {to}-p tcp -m tcp --dport {blocked.port} -j REJECT --reject-with tcp-reset"
                for blocked in blocked_ports
                if (to := _towards(blocked, family)) is not None
            ]
            continue
        found.append(f"{come} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
        if family == "IPv4" and bridge.gateway:
            for port in (MESH_PORT, VIRTUAL_PORT):
                mesh = f"-d {bridge.gateway}/32 -p tcp -m tcp --dport {port}"
                found.append(f"{come} {mesh} -j RETURN")
        found.append(f"{come} -p tcp -j REJECT --reject-with tcp-reset")
        found.append(f"{come} -j REJECT --reject-with {_UNREACHABLE[family]}")
    return found


def _towards(blocked: BlockedPort, family: Family) -> str | None:
    """Return the match for a blocked port's address; None if it is of the other IP version."""
    if not blocked.host:
        return ""
    if (":" in blocked.host) != (family == "IPv6"):
        return None
    return f"-d {blocked.host} "


def table(chain: str, wanted: Sequence[str], jumps: int) -> str:
    """Return the input for `iptables-restore --noflush` that creates the chain in one step:
    naming a chain empties it. `jumps` is the number of jumps that INPUT has now."""
    lines = [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in wanted)]
    lines += [f"-I INPUT 1 -j {chain}"] if jumps == 0 else [f"-D INPUT -j {chain}"] * (jumps - 1)
    return _committed(lines)


def removal(chain: str, jumps: int) -> str:
    """Return the text for `iptables-restore` to remove the chain and all jumps to it."""
    lines = [f":{chain} - [0:0]", *[f"-D INPUT -j {chain}"] * jumps, f"-X {chain}"]
    return _committed(lines)


def jumps_in(listing: str, chain: str) -> int:
    """Count the jumps from INPUT to the chain, in the output of `iptables -S`."""
    return listing.splitlines().count(f"-A INPUT -j {chain}")


def stale(
    listing: str, chain: str, interfaces: Collection[str], source: str = "INPUT"
) -> list[str]:
    """Return the chains of other meshes, with jumps from the chain `source`, that no longer match
    anything.

    Each has rules, and all rules name bridges that are not among the host's `interfaces`. A bridge
    is removed with its network, so that mesh has no networks, or its state was deleted. If it still
    exists, it creates the chain again with its next network. A chain with any line that does not
    look like ours is left alone.
    """
    rules_of: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if line.endswith(f" {_FROM_HOST}"):
            continue
        if line.startswith("-N ") and _OURS.fullmatch(line[3:]) and line[3:] != chain:
            rules_of[line[3:]] = []
        elif line.startswith("-A ") and (name := line.split()[1]) in rules_of:
            rules_of[name].append(line)
        elif line.split()[-1] in rules_of and line != f"-A {source} -j {line.split()[-1]}":
            del rules_of[line.split()[-1]]  # a foreign rule leads there
    return [
        name
        for name, lines in rules_of.items()
        if lines and all(_gone(line.split(), interfaces) for line in lines)
    ]


def _gone(words: Sequence[str], interfaces: Collection[str]) -> bool:
    """Return whether a rule matches one interface (`-i`) that does not exist, or protects addresses
    of one, which its comment names."""
    if "--comment" in words:
        return words[words.index("--comment") + 1] not in interfaces
    if "-i" not in words or "!" in words:
        return False
    interface = words[words.index("-i") + 1]
    return interface not in interfaces and not interface.endswith("+")


def _committed(lines: Sequence[str]) -> str:
    return "\n".join(["*filter", *lines, "COMMIT", ""])
