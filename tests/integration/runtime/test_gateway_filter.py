"""Who reaches the address of a gateway: with real iptables in network namespaces that the test
creates, a host with two bridges and a container on one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,  # an engine needs iptables too, and root
]
FIREWALL = """
import asyncio
from meshd.runtime.docker.firewall_rules import Bridge
from meshd.runtime.docker.host_firewall import HostFirewall
from meshd.runtime.docker.iptables import Iptables

BRIDGES = [
    Bridge("br-own", "172.30.0.1", False, "172.30.0.128/25"), Bridge("br-other", "172.31.0.1", True)
]


async def main():
    async def networks(projects):
        return BRIDGES
    made = HostFirewall(networks, Iptables(), "a" * 12, lambda: (), print)
    await made.update()
    assert made.state == "on", made.state


asyncio.run(main())
"""
SERVE = """
import socket, time
for host in ("172.30.0.1", "172.31.0.1", "172.30.0.200"):
    server = socket.socket()
    server.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
    server.bind((host, 80))
    server.listen()
    globals()[host] = server
print("ready", flush=True)
time.sleep(60)
"""
ASK = """
import socket, sys
for host in ("172.30.0.1", "172.30.0.200", "172.31.0.1"):
    try:
        socket.create_connection((host, 80), 1).close()
        print("reached")
    except OSError:
        print("not reached")
"""
STEPS = f"""
set -e
mount -t tmpfs none /run
ip link set lo up
ip link add br-own type bridge
ip link add br-other type bridge
ip addr add 172.30.0.1/24 dev br-own
ip addr add 172.31.0.1/24 dev br-other
ip route add local 172.30.0.128/25 dev br-own
for name in own other; do
    ip netns add $name
    ip link add v-$name type veth peer name eth0 netns $name
    ip link set v-$name master br-$name up
    ip link set br-$name up
    ip netns exec $name ip link set eth0 up
done
ip netns exec own ip addr add 172.30.0.2/24 dev eth0
ip netns exec own ip route add default via 172.30.0.1
ip netns exec other ip addr add 172.31.0.2/24 dev eth0
ip netns exec other ip route add default via 172.31.0.1
{sys.executable} -c "$SERVE" > "$FOLDER/server" &
until grep -q ready "$FOLDER/server"; do sleep 0.05; done
ip netns exec other {sys.executable} -c "$ASK" > "$FOLDER/before"
{sys.executable} -c "$FIREWALL"
ip netns exec other {sys.executable} -c "$ASK" > "$FOLDER/other"
ip netns exec own {sys.executable} -c "$ASK" > "$FOLDER/own"
{sys.executable} -c "$ASK" > "$FOLDER/host"
kill %1
"""


def test_a_gateway_is_reached_from_its_own_network_and_from_the_host(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["unshare", "-n", "-m", "bash", "-c", STEPS],
        env={
            "FIREWALL": FIREWALL,
            "SERVE": SERVE,
            "ASK": ASK,
            "FOLDER": str(tmp_path),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    reached = {
        name: [line == "reached" for line in (tmp_path / name).read_text().splitlines()]
        for name in ("before", "other", "own", "host")
    }
    assert reached == {
        "before": [True, True, True],
        "other": [False, False, True],
        # Nothing redirects a connection to the virtual address, so nothing of the host answers.
        "own": [True, False, False],
        "host": [True, True, True],
    }
