"""Chains of meshes that no longer exist are removed, and no others: with real iptables in a network
namespace that the test creates."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,  # an engine needs iptables too, and root
]
SCENE = """
import asyncio
from meshd.runtime.docker.firewall_rules import Bridge
from meshd.runtime.docker.host_firewall import HostFirewall
from meshd.runtime.docker.iptables import Iptables


def firewall(instance, *bridges):
    async def networks(projects):
        return [Bridge(name, "172.30.0.1", True) for name in bridges]
    return HostFirewall(networks, Iptables(), instance * 12, lambda: (), print)


async def main():
    for instance, *bridges in (("a", "br-a"), ("b", "br-gone"), ("c", "br-a", "br-gone")):
        made = firewall(instance, *bridges)
        await made.update()
        assert made.state == "on", made.state
    assert (await Iptables().listing("IPv4")).count("-N MESHD-") == 3


async def later():
    made = firewall("d", "br-a")
    await made.update()
    assert made.state == "on", made.state


import sys
asyncio.run(main() if sys.argv[1] == "before" else later())
"""
STEPS = f"""
set -e
ip link add br-a type bridge
ip link add br-gone type bridge
{sys.executable} -c "$SCENE" before
iptables -N THEIRS
iptables -A THEIRS -i br-gone -j DROP
iptables -A INPUT -j THEIRS
iptables -A INPUT -i br-gone -j DROP
iptables -N MESHD-eeeeeeeeeeee
iptables -A MESHD-eeeeeeeeeeee -s 192.0.2.1 -j DROP
ip link del br-gone
iptables -S | sort > "$FOLDER/before"
{sys.executable} -c "$SCENE" later
iptables -S | sort > "$FOLDER/after"
ip6tables -S > "$FOLDER/six" 2>/dev/null || true
"""


def test_only_stale_chains_are_removed(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["unshare", "-n", "sh", "-c", STEPS],
        env={"SCENE": SCENE, "FOLDER": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    before, after, six = (
        set((tmp_path / name).read_text().splitlines()) for name in ("before", "after", "six")
    )
    gone = "MESHD-" + "b" * 12
    assert {line for line in before if gone not in line} == {
        line for line in after if "MESHD-" + "d" * 12 not in line
    }
    assert any(gone in line for line in before)
    assert not any(gone in line for line in after | six)
    assert "-A INPUT -j MESHD-" + "c" * 12 in after
