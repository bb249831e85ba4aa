"""iptables rules that lead new connections to a port of the host to another port. Pure.

Used by `port_redirection` while a service with a published port changes between plain and
mesh-managed. The engine leads connections to a port that it publishes to the container, in
PREROUTING and OUTPUT; these rules come before that. Connections that exist stay where they are,
because the kernel looks at the table `nat` only for the first packet of a connection.

It translates their further packets as long as it tracks connections, and it stops tracking those
of an IP version with the last rule that needs it. So a rule that needs it takes the place of a
redirect until the connections that were made through it are over.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from meshd.model.runtime import PortRedirect
from meshd.runtime.docker.firewall_rules import Family, chain_of

_HOOKS: Final = ("PREROUTING", "OUTPUT")
"""Chains of packets from other hosts and containers, and of those from this host."""
_SUFFIX: Final = "-PORTS"
_OURS: Final = re.compile(r"MESHD-[0-9a-f]{12}-PORTS")
_TRACK: Final = "-p tcp -m conntrack --ctstate ESTABLISHED -m tcp --dport {port} -j RETURN"
_RETURN: Final = "-j RETURN"
_WILDCARDS: Final = frozenset(("0.0.0.0", "::"))


def ports_chain_of(instance: str) -> str:
    """Return the chain name of a mesh instance."""
    return chain_of(instance) + _SUFFIX


def family_of(redirect: PortRedirect) -> Family:
    """Return the IP version of a redirect."""
    return "IPv6" if ":" in redirect.host else "IPv4"


def port_rules(redirects: Iterable[PortRedirect], family: Family) -> list[str]:
    """Return the chain's rules for an IP version, without the chain name."""
    found = []
    for each in sorted(redirects):
        if family_of(each) != family:
            continue
        if each.host in _WILDCARDS:
            found.append(
                f"-p tcp -m addrtype --dst-type LOCAL -m tcp --dport {each.port} "
                f"-j REDIRECT --to-ports {each.target}"
            )
        else:  # REDIRECT would choose the first address of the interface
            whole, shown = ("/128", f"[{each.host}]") if family == "IPv6" else ("/32", each.host)
            found.append(
                f"-d {each.host}{whole} -p tcp -m tcp --dport {each.port} "
                f"-j DNAT --to-destination {shown}:{each.target}"
            )
    return found


def tracking_rules(
    chain: str, wanted: Iterable[PortRedirect], listing: str, connected: Collection[int]
) -> list[str]:
    """Return the rules that let the kernel track connections of earlier redirects: those whose
    rules `listing` still has, and those to ports that are `connected`. They change nothing for a
    packet."""
    now = {each.target for each in wanted}
    lines = [line for line in listing.splitlines() if line.startswith(f"-A {chain} ")]
    kept = {
        port
        for line in lines
        if (port := _target(line)) not in now and (port in connected or not line.endswith(_RETURN))
    }
    return [_TRACK.format(port=port) for port in sorted(kept)]


def ports_table(chain: str, wanted: Sequence[str], listing: str) -> str | None:
    """Return the input for `iptables-restore --noflush` that makes the chain have the rules and
    come before the engine's; without rules, the input that removes the chain. None if `listing`,
    the output of `iptables -S`, is so already."""
    lines = listing.splitlines()
    have = [line.partition(f"-A {chain} ")[2] for line in lines if line.startswith(f"-A {chain} ")]
    jumps = {hook: lines.count(f"-A {hook} -j {chain}") for hook in _HOOKS}
    removed = [f"-D {hook} -j {chain}" for hook in _HOOKS for _ in range(jumps[hook])]
    if not wanted:
        if f"-N {chain}" not in lines:
            return None
        return _committed([f":{chain} - [0:0]", *removed, f"-X {chain}"])
    placed = all(jumps[hook] == 1 and _comes_first(chain, hook, lines) for hook in _HOOKS)
    if have == list(wanted) and placed:
        return None
    # Virtual addresses are addresses of the host too: their chain keeps its place before this one.
    virtual = f"-A PREROUTING -j {chain.removesuffix(_SUFFIX)}" in lines
    return _committed(
        [
            f":{chain} - [0:0]",
            *(f"-A {chain} {rule}" for rule in wanted),
            *removed,
            f"-I PREROUTING {2 if virtual else 1} -j {chain}",
            f"-I OUTPUT 1 -j {chain}",
        ]
    )


def unused_port_chains(listing: str, chain: str, used: Collection[int]) -> list[str]:
    """Return the chains of other meshes that lead to ports on which nothing listens and that have
    no connections, so are not `used`: that mesh ended without removing them."""
    targets: dict[str, list[int]] = {}
    for line in listing.splitlines():
        words = line.split()
        if words[0] == "-N" and _OURS.fullmatch(words[1]) and words[1] != chain:
            targets[words[1]] = []
        elif words[0] == "-A" and words[1] in targets:
            targets[words[1]].append(_target(line))
    return [
        name for name, ports in targets.items() if ports and not any(port in used for port in ports)
    ]


def _target(line: str) -> int:
    """Return the port that a rule leads to, or whose connections it keeps tracked."""
    words = line.split()
    last = words[words.index("--dport") + 1] if line.endswith(_RETURN) else words[-1]
    return int(last.rpartition(":")[2])


def _comes_first(chain: str, hook: str, lines: Sequence[str]) -> bool:
    """Whether the jump to the chain comes before all jumps to others than a mesh."""
    jumps = [line for line in lines if line.startswith(f"-A {hook} ")]
    for line in jumps:
        if line == f"-A {hook} -j {chain}":
            return True
        if not line.split()[-1].startswith("MESHD-"):
            return False
    return False


def _committed(lines: Sequence[str]) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])
