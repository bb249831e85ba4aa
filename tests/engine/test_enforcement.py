"""`x-mesh.enforce`: containers of one network cannot connect past the mesh, nor forge addresses."""

import asyncio
import json
import uuid

import pytest

from tests.engine.test_addresses import command
from tests.support.mesh import TestMesh
from tests.support.scaled import scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print("no answer")
"""
FORGE = """
import socket, struct, sys
source, target = map(socket.inet_aton, sys.argv[1:])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
datagram = struct.pack("!HHHH", 4000, 9999, 12, 0) + b"fake"
head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(datagram), 1, 0, 64, 17, 0, source, target)
raw.sendto(head + datagram, (sys.argv[2], 0))
"""
LISTEN = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 9999))
udp.settimeout(4)
print("listens", flush=True)
try:
    print(udp.recvfrom(100)[1][0])
except TimeoutError:
    print("nothing")
"""


def compose(project: str, image: str, enforce: str) -> str:
    base = f"    image: {image}\n    stop_grace_period: 1s\n    networks: [shared]\n"
    serve = f"    command: [python3, -c, {json.dumps(SERVER)}]\n"
    return f"""
name: {project}
services:
  api:
{base}{serve}    x-mesh: {{allow: [web]{enforce}}}
  web:
{base}{serve}    x-mesh: {{}}
  plain:
{base}    command: [sleep, infinity]
networks: {{shared: {{}}}}
"""


async def replica(mesh: TestMesh, service: str, network: str) -> tuple[str, str]:
    """Return name and address of a replica of a service on a network."""
    name = (await mesh.service(service))["replicas"][0]["name"]
    path = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return name, (await command("docker", "inspect", "-f", path, name)).strip()


async def get(container: str, url: str) -> str:
    return (await command("docker", "exec", container, "python3", "-c", GET, url)).strip()


async def hear(listener: str, forger: str, source: str, target: str) -> str:
    """Return the source of a forged datagram that arrives at the listener."""
    words = ("docker", "exec", listener, "python3", "-c", LISTEN)
    hearing = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert hearing.stdout is not None
    assert await hearing.stdout.readline() == b"listens\n"
    await command("docker", "exec", forger, "python3", "-c", FORGE, source, target)
    out, _ = await hearing.communicate()
    return out.decode().strip()


async def test_allow_holds_on_a_shared_network(engine_image: str) -> None:
    project = f"enf{uuid.uuid4().hex[:6]}"
    network = f"{project}_shared"
    async with scaled_mesh("docker") as mesh:
        done = await mesh.up(compose(project, engine_image, ""))
        assert done.code == 0, done.out + done.err
        assert "x-mesh.enforce" in done.out + done.err
        api, api_address = await replica(mesh, "api", network)
        web, web_address = await replica(mesh, "web", network)
        plain, plain_address = await replica(mesh, "plain", network)
        assert await get(plain, f"http://{api_address}:8080") == "served"
        assert await hear(web, plain, api_address, web_address) == api_address

        done = await mesh.up(compose(project, engine_image, ", enforce: true"))
        assert done.code == 0, done.out + done.err

        async def is_enforced() -> bool:
            return api_address in await command("iptables", "-t", "mangle", "-S")

        await wait_until(is_enforced)
        assert (await mesh.service("api"))["replicas"][0]["name"] == api
        assert await get(plain, f"http://{api_address}:8080") == "no answer"
        assert await get(web, f"http://{api_address}:8080") == "no answer"
        assert await get(web, "http://api:8080") == "served"
        assert await get(plain, "http://api:8080") == "403"
        assert await get(api, f"http://{web_address}:8080") == "served"
        assert await hear(web, plain, api_address, web_address) == "nothing"
        assert await hear(web, plain, plain_address, web_address) == plain_address
        assert (await mesh.api("/v1/status"))["enforcement"] == "on"
    assert network not in await command("docker", "network", "ls")
    assert api_address not in await command("iptables", "-t", "mangle", "-S")
