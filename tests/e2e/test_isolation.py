"""Who may call a service with an `allow` list, no route and an internal network."""

import asyncio
import json
import os
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.support.inside_replica import UNREACHABLE, Answer, Inside, get, ran
from tests.support.mesh import TestMesh, service_text


def compose(mesh: TestMesh, image: str) -> str:
    def one(name: str, policy: str) -> str:
        return service_text(name, mesh.runtime, image, deploy="{replicas: 1}", policy=policy)

    return (
        f"name: {mesh.environment['PROJECT']}\nservices:\n"
        + one("orders", "{routes: [/orders]}")
        + one("snoop", "{routes: [/snoop]}")
        + one("payments", "{allow: [orders]}")
        + "    networks: [vault]\nnetworks:\n  vault: {internal: true}\n"
    )


async def outside(mesh: TestMesh, request: bytes) -> Answer:
    """A request of a container outside the mesh."""
    host, _, port = mesh.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return Answer(int(head.split(" ", 2)[1]), body)


def served_by(answer: Answer) -> str:
    """Return the service whose replica answered."""
    assert answer.status == 200, answer
    return str(json.loads(answer.text)["replica"]).split("-")[-2]


async def counted(mesh: TestMesh, family: str, *labels: str) -> float:
    """Return one sample of the metrics; 0 if there is none."""
    for line in (await mesh.text("/metrics")).splitlines():
        if line.startswith(family) and all(label in line for label in labels):
            return float(line.rpartition(" ")[2])
    return 0.0


async def grown_to(mesh: TestMesh, least: float, family: str, *labels: str) -> None:
    """Wait until a sample has grown to a value, by the workers' reports."""
    async with asyncio.timeout(10):
        while await counted(mesh, family, *labels) < least:
            await asyncio.sleep(0.1)


async def test_only_allowed_callers_get_through(mesh: TestMesh, engine_image: str) -> None:
    up = await mesh.up(compose(mesh, engine_image))
    assert up.code == 0, up.out + up.err
    project = mesh.environment["PROJECT"]
    orders, snoop = await Inside.first(mesh, "orders"), await Inside.first(mesh, "snoop")

    assert served_by(await orders.call("payments")) == "payments"
    refused = await snoop.call("payments")
    assert refused.status == 403
    assert "may not be called from there" in refused.text
    assert served_by(await snoop.call("orders")) == "orders"
    forged = ("X-Forwarded-For: 127.0.0.1", f"X-Mesh-Caller: {project}/orders", "Via: orders")
    assert (await snoop.call("payments", "/", *forged)).status == 403

    for target, host, status in (
        ("/", "payments", 404), ("/payments", "x", 404), ("/", "payments:80", 404),
        ("http://payments/", "payments", 404), ("http://payments/", "x", 400),
        (f"/{project}/payments", "x", 404), ("/", f"{project}/payments", 400),
    ):  # fmt: skip
        assert (await outside(mesh, get(target, host))).status == status, (target, host)
    # A path that leads somewhere is served by what it leads to, whatever the host says.
    assert served_by(await outside(mesh, get("/orders", "payments"))) == "orders"

    if mesh.runtime == "docker":
        await no_way_by_network(mesh, snoop, orders, engine_image)
    else:
        await no_way_by_token(mesh, snoop, orders)
    key = f'service="{project}/payments"'
    await grown_to(mesh, 3, "meshd_denied_total", key)
    await grown_to(mesh, 1, "meshd_calls_total", key, f'caller="{project}/orders"')
    snooped = f'caller="{project}/snoop"'
    await grown_to(mesh, 3, "meshd_uncovered_calls_total", key, snooped)
    audit = await mesh.run("policy", "audit")
    assert (audit.code, f"{project}/snoop" in audit.out) == (1, True), audit
    suggested = await mesh.run("policy", "suggest")
    assert "  payments:\n    x-mesh:\n      allow: [orders]\n" in suggested.out, suggested
    if mesh.runtime == "docker" and os.geteuid() == 0:
        await the_host_is_kept_out_of_reach(mesh, snoop)


async def no_way_by_network(mesh: TestMesh, snoop: Inside, orders: Inside, image: str) -> None:
    """On Docker a caller is known by its network."""
    assert served_by(await orders.send("payments", 80, get("/", "payments"))) == "payments"
    for target, host in (
        ("/", "payments"), ("http://payments/", "orders"), ("http://payments:80/", "x"),
        ("/", "PAYMENTS"), ("/", f"{mesh.environment['PROJECT']}/payments"),
    ):  # fmt: skip
        got = await snoop.send("payments", 80, get(target, host))
        assert got.status in (403, 400), (target, host, got)
    # One request that names two services is read as neither.
    assert (await snoop.send("payments", 80, get("http://orders/", "payments"))).status == 400

    own = await gateway(f"{mesh.environment['PROJECT']}.orders")
    got = await snoop.send(own, 80, get("/", "payments"))
    assert got.status in (403, UNREACHABLE), "snoop passed as orders at the door of orders"
    stranger = await at_the_door_of(own, image)
    assert stranger.status in (403, UNREACHABLE), "a stranger passed as orders"

    (payments,) = (await mesh.service("payments"))["replicas"]
    host, _, port = payments["address"].rpartition(":")
    addresses = await addresses_of(payments["name"])
    assert host in addresses
    for address in addresses:
        got = await snoop.send(address, int(port), get("/", "x"))
        assert got.status == UNREACHABLE, f"snoop reached payments at {address}"
    await no_way_by_forging(mesh, snoop, orders, payments["name"], int(port), image)
    inside = await Inside.first(mesh, "payments")
    for other in await addresses_of(snoop.replica):
        assert (await inside.send(other, int(port), get("/", "x"))).status == UNREACHABLE


FORGE = """
import errno, socket, sys
gateway, other, own = sys.argv[1:]
for family, kind, protocol in (
    (socket.AF_PACKET, socket.SOCK_RAW, 0x0300), (socket.AF_INET, socket.SOCK_RAW, 6),
):
    try:
        socket.socket(family, kind, protocol)
    except PermissionError:
        continue
    sys.exit("it has raw sockets")
IP_FREEBIND = 15
def dial(source):
    with socket.socket() as connection:
        connection.settimeout(3)
        connection.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        connection.bind((source, 0))
        connection.connect((gateway, 80))
dial(own)
try:
    dial(other)
except OSError:
    sys.exit(0)
sys.exit("it connected with the address of another")
"""


async def no_way_by_forging(
    mesh: TestMesh, snoop: Inside, orders: Inside, payments: str, port: int, image: str
) -> None:
    """No container can take another's address or reach addresses of the mesh alone."""
    own, *_ = await addresses_of(snoop.replica)
    other, *_ = await addresses_of(orders.replica)
    door = await gateway(f"{mesh.environment['PROJECT']}.snoop")
    command = ("docker", "exec", snoop.replica, "python3", "-c", FORGE, door, other, own)
    code, _, err = await ran(*command)
    assert code == 0, err.decode()
    code, out, _ = await ran(
        "docker", "inspect", "--format", "{{.HostConfig.PortBindings}}", payments
    )
    assert (code, out.strip()) == (0, b"map[]"), "payments is published on the host"
    async with stranger(image) as outside:
        for address in await addresses_of(payments):
            got = await outside.send(address, port, get("/", "x"))
            assert got.status == UNREACHABLE, f"a stranger reached payments at {address}"
    # Of the host, an internal container reaches the mesh, and not the doors for others.
    inside = Inside(payments, docker=True)
    door = await gateway(f"{mesh.environment['PROJECT']}.payments")
    assert (await inside.send(door, 80, get("/", "orders"))).status == 200
    log = (mesh.state / "daemon.log").read_text()
    metrics = re.findall(r'"metrics": "127\.0\.0\.1:(\d+)"', log)
    assert metrics, log[-2000:]
    for address in (door, "172.17.0.1"):
        for closed in (mesh.address.rpartition(":")[2], *metrics):
            got = await inside.send(address, int(closed), get("/metrics", "x"))
            assert got.status == UNREACHABLE, f"payments reached {address}:{closed}"


async def the_host_is_kept_out_of_reach(mesh: TestMesh, snoop: Inside) -> None:
    """An internal container reaches the mesh on the host and no other open port; removed rules are
    restored, and none is left after the last network."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    project = mesh.environment["PROJECT"]
    inside = await Inside.first(mesh, "payments")
    door, other = await gateway(f"{project}.payments"), await gateway(f"{project}.snoop")
    chain = f"MESHD-{await instance_of(inside.replica)}"
    request = get("/", "x")
    async with await asyncio.start_server(answer, "0.0.0.0", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def kept_out() -> bool:
            return (await inside.send(door, port, request)).status == UNREACHABLE

        assert (await snoop.send(other, port, request)).status == 200, "the address answers at all"
        assert await kept_out(), "an internal container reached the host"
        assert (await inside.send(door, 80, get("/", "orders"))).status == 200
        for _ in range(3):  # the mesh may restore its rules at that very moment
            await iptables("-D", "INPUT", "-j", chain)
            await iptables("-F", chain)
            if not (out := await kept_out()):
                break
        assert not out, "something else keeps it out"
        mesh.kill(mesh.child("meshd.daemon"))
        async with asyncio.timeout(30):
            while not await kept_out():
                await asyncio.sleep(0.2)
        assert (await inside.send(door, 80, get("/", "orders"))).status == 200
    assert f"-A INPUT -j {chain}" in (await iptables("-S")).splitlines()
    assert (await mesh.api("/v1/status"))["filter"] == "on"
    assert (await mesh.down()).code == 0
    assert chain not in await iptables("-S"), "rules are left"


async def iptables(*arguments: str) -> str:
    code, out, err = await ran("iptables", "-w", "5", *arguments)
    assert code == 0, err.decode()
    return out.decode()


async def instance_of(container: str) -> str:
    form = '{{index .Config.Labels "mesh.instance"}}'
    code, out, err = await ran("docker", "inspect", container, "--format", form)
    assert code == 0, err
    return out.decode().strip()


async def gateway(network: str) -> str:
    form = "{{(index .IPAM.Config 0).Gateway}}"
    code, out, err = await ran("docker", "network", "inspect", network, "--format", form)
    assert code == 0, err
    return out.decode().strip()


async def addresses_of(container: str) -> list[str]:
    """Return a container's addresses, one per network."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    code, out, err = await ran("docker", "inspect", container, "--format", form)
    assert code == 0, err
    return out.decode().split()


async def at_the_door_of(address: str, image: str) -> Answer:
    """Return what a container outside any mesh gets at a service's gateway."""
    async with stranger(image) as outside:
        return await outside.send(address, 80, get("/", "payments"))


@asynccontextmanager
async def stranger(image: str) -> AsyncIterator[Inside]:
    """Run a container outside any mesh."""
    name = f"e2e-stranger-{uuid.uuid4().hex[:6]}"
    code, _, err = await ran("docker", "run", "-d", "--rm", "--name", name, image, "sleep", "60")
    assert code == 0, err
    try:
        yield Inside(name, docker=True)
    finally:
        await ran("docker", "rm", "-f", name)


async def no_way_by_token(mesh: TestMesh, snoop: Inside, orders: Inside) -> None:
    """On local processes a caller is known by the credential in its URLs."""
    own = (await snoop.environment())["MESH_URL_PAYMENTS"]
    theirs = (await orders.environment())["MESH_URL_PAYMENTS"]
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\.mesh/([^/]+)/payments", own)
    assert found is not None, own
    port, token = int(found[1]), found[2]
    assert token not in theirs
    assert len(token) >= 22, "a credential of fewer than 128 bits can be guessed"
    guessed = token[:-1] + ("A" if token[-1] != "A" else "B")
    for target, host in (
        ("/", "payments"), ("/payments", "payments"), (f"/.mesh/{guessed}/payments", "x"),
        ("/.mesh//payments", "x"), (f"/.mesh/{token}/payments", "orders"),
        (f"http://payments/.mesh/{token}/payments", "orders"),
        (f"/.mesh/{token}/%70ayments", "x"),
    ):  # fmt: skip
        got = await snoop.send("127.0.0.1", port, get(target, host))
        assert got.status in (400, 403, 404), (target, host, got)
    around = await snoop.send("127.0.0.1", port, get(f"/.mesh/{token}/orders/../payments", "x"))
    assert around.status in (400, 403, 404) or served_by(around) == "orders"
    await no_way_by_an_old_token(mesh, snoop, orders, port)
    # The door of the mesh is not the public one.
    assert (await outside(mesh, get(f"/.mesh/{token}/orders", "x"))).status == 404


async def no_way_by_an_old_token(mesh: TestMesh, snoop: Inside, orders: Inside, port: int) -> None:
    """A replica's credential ends with the replica, and does not work in a header."""
    token = urlsplit((await orders.environment())["MESH_URL_PAYMENTS"]).path.split("/")[2]
    target, fields = f"/.mesh/{token}/payments", (f"Authorization: Bearer {token}",)
    assert served_by(await snoop.send("127.0.0.1", port, get(target, "x"))) == "payments"
    got = await snoop.send("127.0.0.1", port, get("/payments", "payments", *fields))
    assert got.status in (403, 404)
    assert (await mesh.run("drain", orders.replica)).code == 0
    gone = lambda s: s["ready"] == 1 and s["replicas"][0]["name"] != orders.replica  # noqa: E731
    await mesh.until("orders", gone, 30)
    async with asyncio.timeout(10):
        while (await snoop.send("127.0.0.1", port, get(target, "x"))).status != 403:
            await asyncio.sleep(0.1)
