"""iptables rules and routes that lead connections to virtual addresses to the proxy. Pure.

Used by `redirection`. A local route makes the host accept packets for all addresses of a network's
free part (AnyIP). One rule for each network redirects TCP connections to them to the proxy's
listener at the network's gateway, which sees the original destination. So the rules change only
when networks do, not with services or ports. The chain of a mesh instance is in the table `nat`;
PREROUTING jumps to it first, since the engine's own rules would lead a virtual address to a
published port.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from meshd.model.runtime import VIRTUAL_PORT

Table = Literal["nat", "mangle"]
"""A table of iptables that has PREROUTING."""


@dataclass(frozen=True, slots=True, order=True)
class Redirect:
    """A network whose free part is redirected.

    - `interface`: name of the bridge.
    - `block`: the free part in CIDR notation.
    - `gateway`: the host's address there.
    """

    interface: str
    block: str
    gateway: str


def redirect_rules(redirects: Iterable[Redirect]) -> list[str]:
    """Return the chain's rules, without the chain name."""
    return [
        f"-d {each.block} -i {each.interface} -p tcp -j DNAT "
        f"--to-destination {each.gateway}:{VIRTUAL_PORT}"
        for each in sorted(redirects)
    ]


def redirect_table(
    chain: str, wanted: Sequence[str], listing: str, table: Table = "nat"
) -> str | None:
    """Return the text for `iptables-restore --noflush` to give the chain these rules and to let
    PREROUTING jump to it first; None if the kernel has all that already, according to `listing`,
    the output of `iptables -S`."""
    lines = listing.splitlines()
    jump = f"-A PREROUTING -j {chain}"
    jumps = [line for line in lines if line.startswith("-A PREROUTING ")]
    have = [line.partition(f"-A {chain} ")[2] for line in lines if line.startswith(f"-A {chain} ")]
    if have == list(wanted) and jumps[:1] == [jump] and jumps.count(jump) == 1:
        return None
    return _committed(
        [
            f":{chain} - [0:0]",
            *(f"-A {chain} {rule}" for rule in wanted),
            *[f"-D PREROUTING -j {chain}"] * jumps.count(jump),
            f"-I PREROUTING 1 -j {chain}",
        ],
        table,
    )


def redirect_removal(chain: str, listing: str, table: Table = "nat") -> str | None:
    """Return the text for `iptables-restore` to remove the chain and all jumps to it; None if the
    chain does not exist."""
    lines = listing.splitlines()
    if f"-N {chain}" not in lines:
        return None
    count = lines.count(f"-A PREROUTING -j {chain}")
    jumps = [f"-D PREROUTING -j {chain}"] * count
    return _committed([f":{chain} - [0:0]", *jumps, f"-X {chain}"], table)


def missing_routes(redirects: Iterable[Redirect], listing: str) -> list[Redirect]:
    """Return the networks whose local route does not exist, according to `listing`, the output of
    `ip -4 route show table local type local`."""
    have = {_route_of(line) for line in listing.splitlines()}
    return [each for each in sorted(redirects) if (each.block, each.interface) not in have]


def surplus_routes(
    redirects: Iterable[Redirect], ours: Collection[tuple[str, str]], listing: str
) -> list[tuple[str, str]]:
    """Return the routes as (block, interface) among `ours` that exist and are not wanted."""
    have = {_route_of(line) for line in listing.splitlines()}
    wanted = {(each.block, each.interface) for each in redirects}
    return sorted((have & set(ours)) - wanted)


def _route_of(line: str) -> tuple[str, str]:
    """Return destination and interface of a line like `local 10.0.0.0/24 dev br-x scope host`."""
    words = line.split()
    if "dev" not in words[:-1]:
        return "", ""
    destination = words[1] if words[0] == "local" else words[0]
    return destination, words[words.index("dev") + 1]


def _committed(lines: Sequence[str], table: Table) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])
