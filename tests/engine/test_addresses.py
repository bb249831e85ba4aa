"""Mesh-managed services have an address for themselves on each network, with all their ports."""

import asyncio
import json
import random
import socket
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.mesh import TestMesh
from tests.support.ports import free_port
from tests.support.scaled import scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
NETWORK = random.randrange(255)
SERVER = """
import http.server, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"%s %d" % (sys.argv[1].encode(), self.server.server_address[1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
for port in sys.argv[2:]:
    threading.Thread(target=Server(("", int(port)), Handler).serve_forever).start()
"""
LOAD = """
import json, os, sys, time, urllib.request
served, failures = {}, []
while not os.path.exists("/tmp/stop"):
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
            text = answer.read().decode()
            served[text] = served.get(text, 0) + 1
    except OSError as error:
        failures.append(repr(error))
    time.sleep(0.005)
print(json.dumps([served, failures]))
"""
CLIENT = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError as error:
        print(type(getattr(error, "reason", error)).__name__)
"""


def compose(
    project: str,
    image: str,
    folder: Path,
    published: int,
    *,
    network: int = NETWORK,
    with_early: bool = False,
) -> str:
    """Return a file. `network`: the N in 10.231.N.0/24, the inner network. `early`: a plain
    service whose first act is a call to one with a list."""
    (folder / "server.py").write_text(SERVER)
    (folder / "client.py").write_text(CLIENT)
    base = (
        f"    image: {image}\n"
        f'    volumes: ["{folder}/server.py:/server.py:ro", "{folder}/client.py:/client.py:ro"]\n'
        "    stop_grace_period: 1s\n"
    )
    subnet = f"10.231.{network}"
    early = (
        f"""
  early:
{base}    command: [sh, -c, "python3 /client.py http://shop http://shop:8080; exec sleep infinity"]
    networks: [front]
    pre_start:
      - {{command: [sh, -c, "python3 /client.py http://shop | grep shop"]}}
      - {{command: [sh, -c, "python3 /client.py http://shop | grep shop"], per_replica: true}}
"""
        if with_early
        else ""
    )
    return f"""
name: {project}
services:
  api:
{base}    command: [python3, -u, /server.py, api, "8080", "9000"]
    expose: [8080, 9000]
    deploy: {{replicas: 2}}
    networks: {{front: {{aliases: [backend]}}, inner: {{}}}}
    x-mesh: {{}}
  shop:
{base}    command: [python3, -u, /server.py, shop, "8080"]
    expose: [8080]
    networks: [front]
    x-mesh: {{allow: [api{", early" if with_early else ""}]}}
  web:
{base}    command: [python3, -u, /server.py, web, "8080"]
    ports: ["{published}:8080"]
    networks: [front]
{early}  vault:
{base}    command: [sleep, infinity]
    networks: {{inner: {{ipv4_address: {subnet}.200}}}}
networks:
  front: {{}}
  inner: {{internal: true, ipam: {{config: [{{subnet: {subnet}.0/24}}]}}}}
"""


async def command(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (words, out, err)
    return out.decode()


async def get(mesh: TestMesh, service: str, *urls: str) -> list[str]:
    """Return the answers, status codes or errors of requests from a container of a service."""
    replica = (await mesh.service(service))["replicas"][0]["name"]
    done = await command("docker", "exec", replica, "python3", "/client.py", *urls)
    return done.split("\n")[:-1]


@pytest.fixture
def project() -> str:
    return f"addr{uuid.uuid4().hex[:6]}"


async def test_names_lead_to_services_on_every_port(project: str, engine_image: str) -> None:
    async with scaled_mesh("docker") as mesh:
        # The engine publishes a port that is also a port of `api`, on all addresses of the host.
        file = compose(project, engine_image, mesh.folder, 8080, with_early=True)
        done = await mesh.up(file)
        assert done.code == 0, done.out + done.err
        api = ["http://api", "http://api:8080", "http://api:9000", "http://backend:9000"]

        for caller in ("web", "api", "shop"):
            found = await get(mesh, caller, *api, "http://api:7000", "http://web:8080")
            assert found == ["api 8080", "api 8080", "api 9000", "api 9000",
                             "ConnectionResetError", "web 8080"], caller  # fmt: skip
        assert await get(mesh, "vault", *api[:3]) == ["api 8080", "api 8080", "api 9000"]
        # allow holds on every port; a service calls itself too.
        urls = ["http://shop", "http://shop:8080"]
        assert await get(mesh, "api", *urls) == ["shop 8080", "shop 8080"]
        assert await get(mesh, "web", *urls) == ["403", "403"]
        # The first calls of a container of a plain service, and those of its `pre_start` steps.
        early = (await mesh.service("early"))["replicas"][0]["name"]
        first = await command("docker", "logs", early)
        assert first.split("\n")[:-1] == ["shop 8080", "shop 8080"]

        shown = await mesh.run("ps")
        assert "warning" not in shown.err, shown.err
        block = await check_survival(mesh)
    left = await command("iptables", "-t", "nat", "-S")
    left += await command("ip", "route", "show", "table", "local", "type", "local")
    assert f"{block}." not in left


async def check_survival(mesh: TestMesh) -> str:
    """Addresses work while the control process is dead, and the next one restores a rule that
    something else removed. Return the first three numbers of the addresses."""
    urls = ["http://api:9000", "http://shop:8080"]
    replica, hosts = await read_hosts(mesh, "web")
    block = hosts["api"].rpartition(".")[0]
    rules = (await command("iptables", "-t", "nat", "-S")).splitlines()
    chain = next(line.split()[1] for line in rules if f"{block}." in line)
    mesh.kill(mesh.child("meshd.daemon"))
    assert await get_from(replica, *urls) == ["api 9000", "403"]
    await command("iptables", "-t", "nat", "-F", chain)

    async def restored() -> bool:
        return await get_from(replica, *urls) == ["api 9000", "403"]

    await wait_until(restored, 20, lambda: "the rule to be restored")
    await mesh.until("api", lambda status: status["ready"] == 2, 20)
    assert (await mesh.run("scale", "api", "1")).code == 0
    await mesh.until("api", lambda status: len(status["replicas"]) == 1, 20)
    assert (await read_hosts(mesh, "web"))[1] == hosts
    assert await get_from(replica, *urls) == ["api 9000", "403"]
    return block


async def read_hosts(mesh: TestMesh, service: str) -> tuple[str, dict[str, str]]:
    """Return a container of a service, and the addresses by name in its hosts file."""
    replica = (await mesh.service(service))["replicas"][0]["name"]
    text = await command("docker", "exec", replica, "cat", "/etc/hosts")
    return replica, {line.split()[1]: line.split()[0] for line in text.splitlines()}


async def get_from(replica: str, *urls: str) -> list[str]:
    done = await command("docker", "exec", replica, "python3", "/client.py", *urls)
    return done.split("\n")[:-1]


async def test_two_projects_have_their_own_addresses(engine_image: str) -> None:
    names = [f"addr{uuid.uuid4().hex[:6]}" for _ in range(2)]
    async with scaled_mesh("docker") as mesh:
        for number, name in enumerate(names):
            file = compose(name, engine_image, mesh.folder, free_port(), network=NETWORK + number)
            done = await mesh.up(file)
            assert done.code == 0, done.out + done.err
        status = await mesh.api("/v1/status")
        for service in status["services"]:
            if service["name"] == "web":
                replica = service["replicas"][0]["name"]
                assert await get_from(replica, "http://api:9000") == ["api 9000"]
        assert (await mesh.run("down", names[0])).code == 0
        (web,) = [s for s in (await mesh.api("/v1/status"))["services"] if s["name"] == "web"]
        assert await get_from(web["replicas"][0]["name"], "http://api:9000") == ["api 9000"]


async def test_a_published_port_has_no_gap(project: str, engine_image: str) -> None:
    port, other = free_port(), free_port()

    def shop(version: str, published: int) -> str:
        return f"""
name: {project}
services:
  web:
    image: {engine_image}
    command: [python3, -u, /server.py, "{version}", "8080", "9000"]
    volumes: ["{{folder}}/server.py:/server.py:ro"]
    stop_grace_period: 1s
    ports: ["{published}:8080", "9000"]
    deploy: {{{{replicas: 2, update_config: {{{{monitor: 0s}}}}}}}}
    x-mesh: {{{{}}}}
  plain:
    image: {engine_image}
    command: [sleep, infinity]
    stop_grace_period: 1s
    ports: ["{other}:80"]
"""

    async with scaled_mesh("docker") as mesh:
        (mesh.folder / "server.py").write_text(SERVER)
        done = await mesh.up(shop("one", port).format(folder=mesh.folder))
        assert done.code == 0, done.out + done.err
        line = next(each for each in done.out.splitlines() if "HTTP (" in each)
        assert "HTTP (x-mesh; main port 8080, from ports)" in line
        assert f"web, web:8080, web:9000, host {port}:8080/tcp" in line
        free = (await mesh.service("web"))["ports"][1].partition(":")[0]
        async with aiohttp.ClientSession() as session:
            assert await body(session, int(free)) == "one 9000"
            answers: list[str] = []
            deploying = asyncio.create_task(mesh.up(shop("two", port).format(folder=mesh.folder)))
            while not deploying.done():
                answers.append(await body(session, port))
            assert (await deploying).code == 0
            answers.append(await body(session, port))
        assert set(answers) == {"one 8080", "two 8080"}
        assert answers[-1] == "two 8080"

        taken = await mesh.up(shop("two", other).format(folder=mesh.folder))
        assert taken.code != 0
        assert f"port {other}/tcp of the host is already published by web" in taken.err
        with socket.create_server(("", 0)) as listener:
            busy = listener.getsockname()[1]
            taken = await mesh.up(shop("two", busy).format(folder=mesh.folder))
        assert taken.code != 0
        assert f"something on this host already listens on port {busy}/tcp" in taken.err
        async with aiohttp.ClientSession() as session:
            assert await body(session, port) == "two 8080", "nothing was changed"


async def body(session: aiohttp.ClientSession, port: int) -> str:
    """Return the body of a good response at a port of the host."""
    async with session.get(f"http://127.0.0.1:{port}/") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_a_change_of_kind_drops_no_request(project: str, engine_image: str) -> None:
    """A container that knows a service by name, and clients of its published port, lose no request
    while the service becomes mesh-managed and plain again."""
    port = free_port()

    def shop(folder: Path, kind: str) -> str:
        return f"""
name: {project}
services:
  api:
    image: {engine_image}
    command: [python3, -u, /server.py, api, "3000"]
    volumes: ["{folder}/server.py:/server.py:ro"]
    stop_grace_period: 1s
    ports: ["{port}:3000"]
    deploy: {{update_config: {{monitor: 0s}}}}
    {kind}
  client:
    image: {engine_image}
    command: [sleep, infinity]
    volumes: ["{folder}/load.py:/load.py:ro"]
    stop_grace_period: 1s
"""

    async with scaled_mesh("docker") as mesh:
        (mesh.folder / "server.py").write_text(SERVER)
        (mesh.folder / "load.py").write_text(LOAD)
        done = await mesh.up(shop(mesh.folder, "labels: {}"))
        assert done.code == 0, done.out + done.err
        client, names = await read_hosts(mesh, "client")
        assert "api" not in names
        gateway = (await command("ip", "-4", "-o", "addr", "show", "docker0")).split()[3]
        hosts = ("127.0.0.1", gateway.partition("/")[0], "::1")
        counts = dict.fromkeys(hosts, 0)
        refused: list[str] = []
        end = asyncio.Event()
        loads = [asyncio.create_task(load(host, port, counts, refused, end)) for host in hosts]
        first = (await mesh.service("api"))["replicas"][0]["name"]
        url = "http://api:3000/"
        calls = asyncio.create_task(command("docker", "exec", client, "python3", "/load.py", url))

        path = mesh.folder / "compose.yml"
        path.write_text(shop(mesh.folder, "x-mesh: {}"))
        preview = await mesh.run("diff", "-f", str(path))
        assert "api: becomes mesh-managed (it was plain), as it has x-mesh now" in preview.out
        done = await mesh.up(path.read_text())
        assert done.code == 0, done.out + done.err
        await replaced(mesh, first)
        assert (await read_hosts(mesh, "client"))[1]["api"]
        counted = (await mesh.service("api"))["requests_total"]
        assert counted > 0, "requests pass through the mesh"

        second = (await mesh.service("api"))["replicas"][0]["name"]
        path.write_text(shop(mesh.folder, "labels: {}"))
        preview = await mesh.run("diff", "-f", str(path))
        assert "api: becomes plain (it was mesh-managed), as it has no x-mesh" in preview.out
        done = await mesh.up(path.read_text())
        assert done.code == 0, done.out + done.err
        await replaced(mesh, second)

        async def direct() -> bool:
            return "api" not in (await read_hosts(mesh, "client"))[1]

        await wait_until(direct, 30, lambda: "the name to be resolved by the engine")
        await wait_until(lambda: rules_are_gone(port), 40, lambda: "the redirect to be removed")
        await asyncio.sleep(0.5)
        await command("docker", "exec", client, "touch", "/tmp/stop")
        served, failures = json.loads(await calls)
        end.set()
        await asyncio.gather(*loads)
        kinds = [event["kind"] for event in await mesh.events()]
        print(served, failures, counts, refused)
        assert failures + refused == []
        assert min(counts.values()) > 100
        assert "port.gap" not in kinds
        assert served["api 3000"] > 500


async def rules_are_gone(port: int) -> bool:
    """Whether no mesh leads this port elsewhere."""
    rules = await command("iptables", "-t", "nat", "-S")
    return not any("-PORTS" in line and f"--dport {port} " in line for line in rules.splitlines())


async def load(
    host: str, port: int, counts: dict[str, int], failures: list[str], end: asyncio.Event
) -> None:
    """Send requests, each on a new connection, until `end`."""
    while not end.is_set():
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                assert answer.endswith(b"api 3000"), answer
                counts[host] += 1
        except (OSError, TimeoutError, AssertionError) as error:
            failures.append(f"{host}: {error!r}")
        await asyncio.sleep(0.02)


async def replaced(mesh: TestMesh, name: str) -> None:
    """Wait until another replica of `api` runs alone."""

    def alone(status: dict[str, Any]) -> bool:
        names = [each["name"] for each in status["replicas"]]
        return status["ready"] == 1 == len(names) and name not in names

    await mesh.until("api", alone, 30)


GREETER = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\\n")
        self.wfile.write(self.rfile.read().upper())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 5432), Handler).serve_forever()
"""
TALK = """
import contextlib, socket, sys
try:
    with socket.create_connection((sys.argv[1], 5432), timeout=10) as connection:
        connection.sendall(b"one two")
        with contextlib.suppress(OSError):  # it was reset already, as the answer will say
            connection.shutdown(socket.SHUT_WR)
        print(b"".join(iter(lambda: connection.recv(4096), b"")).decode().split())
except OSError as error:
    print(type(error).__name__)
"""


async def test_a_tcp_service_is_reached_by_those_that_may(project: str, engine_image: str) -> None:
    async with scaled_mesh("docker") as mesh:
        (mesh.folder / "greeter.py").write_text(GREETER)
        (mesh.folder / "talk.py").write_text(TALK)
        base = (
            f"    image: {engine_image}\n    stop_grace_period: 1s\n"
            f'    volumes: ["{mesh.folder}:/test:ro"]\n'
        )
        done = await mesh.up(
            f"name: {project}\nservices:\n"
            f"  db:\n{base}    command: [python3, -u, /test/greeter.py]\n"
            "    deploy: {replicas: 2}\n    x-mesh: {tcp: 5432, port: 5432, allow: [worker]}\n"
            f"  worker:\n{base}    command: [sleep, infinity]\n"
            f"  snoop:\n{base}    command: [sleep, infinity]\n"
        )
        assert done.code == 0, done.out + done.err
        assert "TCP (x-mesh; main port 5432, from x-mesh.port): db:5432" in done.out
        found = {}
        for caller in ("worker", "snoop"):
            replica = (await mesh.service(caller))["replicas"][0]["name"]
            words = ("docker", "exec", replica, "python3", "/test/talk.py", "db")
            found[caller] = (await command(*words)).strip()
        assert found == {"worker": "['hello', 'ONE', 'TWO']", "snoop": "ConnectionResetError"}


async def test_without_rights_names_lead_to_port_80_or_to_replicas(
    project: str, engine_image: str
) -> None:
    async with scaled_mesh("docker") as mesh:
        mesh.inside = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
        done = await mesh.up(compose(project, engine_image, mesh.folder, free_port()))
        assert done.code == 0, done.out + done.err
        assert "services have no virtual addresses" in done.err
        kinds = [event["kind"] for event in await mesh.events()]
        assert kinds.count("addresses.off") == 1
        assert await get(mesh, "shop", "http://api", "http://web:8080") == ["api 8080", "web 8080"]
        assert await get(mesh, "web", "http://api:9000") == ["api 9000"]
        assert (await mesh.api("/v1/status"))["addresses"].startswith("off: needs root")
