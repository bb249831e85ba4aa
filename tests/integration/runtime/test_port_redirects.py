"""Connections through a redirected port outlive the redirect: with real iptables in a network
namespace that the test creates, where nothing else needs the kernel to track connections."""

import json
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,  # an engine needs iptables too, and root
]
SCRIPT = """
import asyncio, json, socket
from meshd.model.runtime import PortRedirect
from meshd.runtime.docker.addresses.port_redirection import PortRedirection
from meshd.runtime.docker.iptables import Iptables


async def main():
    redirection = PortRedirection(Iptables(), "a" * 12, print)
    for host, address in (("0.0.0.0", "127.0.0.1"), ("::", "::1")):
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        stand_in = socket.create_server((host, 15900), family=kind)
        redirect = PortRedirect(host, 8080, 15900)
        found = [(await redirection.apply([redirect])).applied == {redirect}]
        client = socket.create_connection((address, 8080), 5)
        server = stand_in.accept()[0]
        for _ in range(2):
            found.append((await redirection.apply([])).settled)
            for one, other in ((client, server), (server, client)):
                one.sendall(b"x")
                other.settimeout(5)
                found.append(other.recv(10) == b"x")
        client.close()
        server.close()
        stand_in.close()
        found.append((await redirection.apply([])).settled)
        rules = await Iptables().nat_listing("IPv6" if ":" in host else "IPv4")
        found.append("MESHD" not in rules)
        print(json.dumps(found))


asyncio.run(main())
"""


def test_a_connection_outlives_the_redirect_that_made_it() -> None:
    steps = f"mount -t tmpfs none /run; ip link set lo up; exec {sys.executable} -c '{SCRIPT}'"
    ran = subprocess.run(
        ["unshare", "-n", "-m", "bash", "-c", steps],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    for line in ran.stdout.splitlines():
        applied, *first, left, to_server, to_client, settled, removed = json.loads(line)
        assert applied
        assert first == [False, True, True], "not settled, and data passes both ways"
        assert (left, to_server, to_client) == (False, True, True)
        assert (settled, removed) == (True, True)
    assert len(ran.stdout.splitlines()) == 2
