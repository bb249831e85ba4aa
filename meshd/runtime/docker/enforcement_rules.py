"""iptables rules that enforce `allow` on networks that services share. Pure.

Used by `enforcement`. Two containers of one bridge reach each other without the mesh. The rules
drop connections to the containers of a service with `enforce` unless the host opened them, and
packets that have the address of one container but come from another one. The chain of a mesh
instance is in the table `mangle`, which no engine uses, so that an engine that restarts does not
put its own rules before it. REJECT does not exist there, so a direct connection gets no answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshd.runtime.docker.firewall_rules import Family


@dataclass(frozen=True, slots=True, order=True)
class ContainerAddress:
    """A container's address on a network of the host.

    - `bridge`: the host's interface of the network.
    - `address`: the container's IPv4 or IPv6 address.
    - `port`: the host's interface of the container on the bridge; empty if unknown.
    - `guarded`: whether only the mesh may connect to it.
    """

    bridge: str
    address: str
    port: str
    guarded: bool


def enforcement_rules(attachments: Iterable[ContainerAddress], family: Family) -> list[str]:
    """Return the chain's rules, without the chain name. All attachments of a network without a
    guarded one are left out."""
    found = [each for each in sorted(attachments) if (":" in each.address) == (family == "IPv6")]
    guarded = {each.bridge for each in found if each.guarded}
    length = 128 if family == "IPv6" else 32
    forged = [
        f"-s {each.address}/{length} -i {each.bridge} -m physdev --physdev-is-in "
        f"! --physdev-in {each.port} -m comment --comment {each.bridge} -j DROP"
        for each in found
        if each.port and each.bridge in guarded
    ]
    direct = [
        f"-d {each.address}/{length} -m conntrack ! --ctstate RELATED,ESTABLISHED "
        f"-m comment --comment {each.bridge} -j DROP"
        for each in found
        if each.guarded
    ]
    return forged + direct
