"""What the containers of the mesh's networks reach of their host, as rules for iptables. Pure.

One chain an instance, which INPUT jumps to, and every rule in it is for a bridge of ours: the
host's other traffic passes it unmatched. What is let through only returns, so that the host's own
rules go on to judge it.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshd.model.runtime import MESH_PORT

Family = Literal["IPv4", "IPv6"]
_OURS: Final = re.compile("MESHD-[0-9a-f]{12}")
_UNREACHABLE: Final = {"IPv4": "icmp-port-unreachable", "IPv6": "icmp6-port-unreachable"}


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network of ours on the host: its interface, the host's IPv4 address there, and whether it
    has no way out."""

    interface: str
    gateway: str
    internal: bool


@dataclass(frozen=True, slots=True)
class Door:
    """A TCP port of the daemon's own that no container is to reach. `host` is where it listens;
    empty for every address."""

    host: str
    port: int


def chain_of(instance: str) -> str:
    """The chain of the mesh with that id; iptables takes 28 characters at most."""
    return f"MESHD-{instance[:12]}"


def door_of(address: str) -> Door | None:
    """What to close for a server at `HOST:PORT`; None where no container could reach it."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if host == "::1" or host.startswith("127."):
        return None
    return Door("" if host in ("0.0.0.0", "::") else host, int(port))


def rules(bridges: Iterable[Bridge], doors: Sequence[Door], family: Family) -> list[str]:
    """The chain's rules, each without the chain's name. From an internal network the mesh, at the
    gateway's port, and what the host itself began; from every network not the `doors`."""
    found: list[str] = []
    for bridge in sorted(bridges, key=lambda each: each.interface):
        come = f"-i {bridge.interface}"
        if not bridge.internal:
            found += [
                f"{come} {to}-p tcp -m tcp --dport {door.port} -j REJECT --reject-with tcp-reset"
                for door in doors
                if (to := _towards(door, family)) is not None
            ]
            continue
        found.append(f"{come} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
        if family == "IPv4" and bridge.gateway:
            mesh = f"-d {bridge.gateway}/32 -p tcp -m tcp --dport {MESH_PORT}"
            found.append(f"{come} {mesh} -j RETURN")
        found.append(f"{come} -p tcp -j REJECT --reject-with tcp-reset")
        found.append(f"{come} -j REJECT --reject-with {_UNREACHABLE[family]}")
    return found


def _towards(door: Door, family: Family) -> str | None:
    """The match of where a door is; None when it is of the other family."""
    if not door.host:
        return ""
    if (":" in door.host) != (family == "IPv6"):
        return None
    return f"-d {door.host} "


def table(chain: str, wanted: Sequence[str], jumps: int) -> str:
    """What brings the chain about in one step, for `iptables-restore --noflush`: naming a chain
    empties it. `jumps` is how often INPUT jumps there now."""
    lines = [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in wanted)]
    lines += [f"-I INPUT 1 -j {chain}"] if jumps == 0 else [f"-D INPUT -j {chain}"] * (jumps - 1)
    return _committed(lines)


def removal(chain: str, jumps: int) -> str:
    """What takes the chain away, with every jump there."""
    lines = [f":{chain} - [0:0]", *[f"-D INPUT -j {chain}"] * jumps, f"-X {chain}"]
    return _committed(lines)


def jumps_in(listing: str, chain: str) -> int:
    """How often INPUT jumps to the chain, by the answer to `iptables -S`."""
    return listing.splitlines().count(f"-A INPUT -j {chain}")


def stale(listing: str, chain: str, interfaces: Collection[str]) -> list[str]:
    """The chains of other meshes that match nothing any more: each has rules, all for bridges
    that are none of the host's `interfaces`. Bridges go with their networks, so the mesh has none,
    or its state was deleted and its networks after it; where it lives, it makes the chain anew
    with its next network. What does not look like one of ours in every line is left alone."""
    rules_of: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if line.startswith("-N ") and _OURS.fullmatch(line[3:]) and line[3:] != chain:
            rules_of[line[3:]] = []
        elif line.startswith("-A ") and (name := line.split()[1]) in rules_of:
            rules_of[name].append(line)
        elif line.split()[-1] in rules_of and line != f"-A INPUT -j {line.split()[-1]}":
            del rules_of[line.split()[-1]]  # somebody else's rule leads there
    return [
        name
        for name, lines in rules_of.items()
        if lines and all(_gone(line.split(), interfaces) for line in lines)
    ]


def _gone(words: Sequence[str], interfaces: Collection[str]) -> bool:
    """Whether a rule is for one interface (`-i`), that is not there."""
    if "-i" not in words or "!" in words:
        return False
    interface = words[words.index("-i") + 1]
    return interface not in interfaces and not interface.endswith("+")


def _committed(lines: Sequence[str]) -> str:
    return "\n".join(["*filter", *lines, "COMMIT", ""])
