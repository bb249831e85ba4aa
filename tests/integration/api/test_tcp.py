"""The API over TCP: who may do what, and which requests are refused before that is asked."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import NameOID

from meshd.api import access
from meshd.api.client import ApiFailure, Client, NoDaemon, RemoteDaemon
from meshd.api.rate_limit import BURST
from meshd.api.route_table import ROUTES
from meshd.api.routes import ApiRoute
from meshd.api.server import Serving, serve
from meshd.api.tcp_address import ServeError, TcpSettings
from meshd.cli.main import main
from meshd.model.access import Role
from meshd.model.event import Event
from meshd.model.job import JobOrder
from meshd.model.silence import NewSilence
from meshd.spec.model import Project, Service
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.answers import status_of
from tests.support.certificate_authority import Authority

LOOPBACK = TcpSettings("127.0.0.1:0", names=("mesh.test",))


@pytest.fixture
def control() -> FakeControl:
    fake = FakeControl()
    fake.services = traffic.status().services
    return fake


@pytest.fixture
async def serving(control: FakeControl, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0", LOOPBACK) as bound:
        yield bound


@pytest.fixture
async def session(serving: Serving) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{serving.tcp_address}") as opened:
        yield opened


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def path_of(route: ApiRoute) -> str:
    return re.sub(r"{\w+}", "x", route.path)


async def test_without_a_token_nothing_is_readable(
    control: FakeControl, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FAILURE_COST", 1.0)
    refused = {}
    for route in ROUTES:
        answer = await session.request(route.method, path_of(route))
        text = await answer.text()
        refused[route] = (answer.status, answer.headers["WWW-Authenticate"], "orders" in text)
    assert set(refused.values()) == {(401, 'Bearer realm="meshd"', False)}
    assert await status_of(session.get("/nothing")) == 401
    assert (await session.get("/v1/status", headers=bearer("wrong"))).status == 401
    assert control.calls == []


@pytest.mark.parametrize("role", [Role.VIEW, Role.OPERATE])
async def test_a_role_may_do_what_the_table_says(
    control: FakeControl, session: aiohttp.ClientSession, role: Role
) -> None:
    headers = bearer(control.access.add(role))
    before = len(control.access.secrets)
    for route in ROUTES:
        if route.streams is None or route.method == "GET":
            answer = await session.request(route.method, path_of(route), headers=headers)
            assert (answer.status == 403) == (not role.includes(route.role)), route
            answer.close()
    changing = {"deploy", "down", "shutdown"}
    if role is Role.VIEW:
        changing |= {"scale", "drain", "restart", "undo", "pause", "resume", "retry certificate"}
        assert control.jobs.orders == []
    assert not changing & {str(call[0]) for call in control.calls}
    assert len(control.access.secrets) == before
    assert control.volumes.calls == []


def test_routes_of_the_role_view_only_read() -> None:
    assert {route.method for route in ROUTES if route.role is Role.VIEW} == {"GET"}


async def test_an_admin_may_use_every_route(
    control: FakeControl, session: aiohttp.ClientSession
) -> None:
    headers = bearer(control.access.add(Role.ADMIN))
    for route in ROUTES:
        answer = await session.request(route.method, path_of(route), headers=headers)
        assert answer.status not in (401, 403, 421, 429), route
        answer.close()


async def test_a_token_of_a_project_silences_only_that(
    control: FakeControl, session: aiohttp.ClientSession
) -> None:
    control.create_silence(NewSilence(60.0), "me")
    control.create_silence(NewSilence(60.0, "bank"), "me")
    headers = bearer(control.access.add(Role.OPERATE, "shop"))

    async def create(**body: object) -> int:
        body = {"seconds": 60.0, **body}
        async with session.post("/v1/silences", headers=headers, json=body) as answer:
            return answer.status

    assert await create() == 403
    assert await create(project="bank") == 403
    assert await create(project="shop", service="web") == 201
    assert await create(project="shop", nonsense=1) == 400
    async with session.get("/v1/silences", headers=headers) as answer:
        (seen,) = await answer.json()
    assert (seen["project"], seen["service"]) == ("shop", "web")
    for id, status in (("s1", 404), ("x", 404), (seen["id"], 204)):
        async with session.delete(f"/v1/silences/{id}", headers=headers) as answer:
            assert answer.status == status
    assert [each.id for each in control.silenced] == ["s0", "s1"]


async def test_a_token_of_a_project_sees_and_changes_only_that(
    control: FakeControl, session: aiohttp.ClientSession
) -> None:
    control.services = (
        *traffic.status().services,
        *(s for s in _other_project() if s.project == "bank"),
    )
    control.emit(Event(1, 1.0, "deploy", project="bank"))
    control.emit(Event(2, 1.0, "deploy", project="shop"))
    theirs = control.jobs.begin("bank", "vault", JobOrder(), "test")
    ours = control.jobs.begin("shop", "orders", JobOrder(), "test")
    headers = bearer(control.access.add(Role.ADMIN, "shop"))

    async def status(method: str, path: str) -> int:
        answer = await session.request(method, path, headers=headers)
        answer.close()
        return answer.status

    seen = await (await session.get("/v1/status", headers=headers)).json()
    assert {service["project"] for service in seen["services"]} == {"shop"}
    assert {project["name"] for project in seen["projects"]} == {"shop"}
    events = await (await session.get("/v1/events", headers=headers)).json()
    assert [event["id"] for event in events] == [2]
    jobs = await (await session.get("/v1/jobs", headers=headers)).json()
    assert [job["id"] for job in jobs["jobs"]] == [ours.id]
    assert await status("GET", f"/v1/jobs/{ours.id}") == 200
    assert await status("GET", f"/v1/jobs/{theirs.id}") == 403
    assert await status("POST", "/v1/replicas/orders-a/drain") == 204
    assert await status("POST", "/v1/replicas/vault-a/drain") == 403
    assert await status("POST", "/v1/projects/shop/services/orders/restart") == 202
    assert await status("POST", "/v1/projects/bank/services/vault/restart") == 403
    for method, path in [
        ("GET", "/metrics"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/volumes"),
        ("POST", "/v1/shutdown"),
    ]:
        assert await status(method, path) == 403, path


def _other_project() -> tuple[object, ...]:
    fake = FakeControl()
    fake.projects["bank"] = Project(name="bank", services=(Service(name="vault"),))
    return fake.status().services


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "mesh.test:9901"}, 200),
        ({"Host": "evil.test"}, 421),
        ({"Host": "10.0.0.1"}, 421),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_pages_of_other_sites_are_refused(
    control: FakeControl,
    session: aiohttp.ClientSession,
    headers: dict[str, str],
    status: int,
) -> None:
    signed = {**bearer(control.access.add(Role.VIEW)), **headers}
    async with session.get("/v1/status", headers=signed) as answer:
        await answer.read()
    assert answer.status == status
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_page_of_this_server_is_answered(
    control: FakeControl, serving: Serving, session: aiohttp.ClientSession
) -> None:
    origin = {"Origin": f"http://{serving.tcp_address}"}
    headers = {**bearer(control.access.add(Role.VIEW)), **origin}
    assert await status_of(session.get("/v1/status", headers=headers)) == 200
    preflight = session.options("/v1/status", headers={"Origin": "https://evil.test"})
    assert await status_of(preflight) == 403


async def test_a_client_that_sends_too_much_is_slowed_down(
    control: FakeControl, session: aiohttp.ClientSession
) -> None:
    statuses = [await status_of(session.get("/v1/status")) for _ in range(int(BURST))]
    # Each failed sign-in counts as twenty requests.
    assert statuses.count(401) < BURST / 5
    assert statuses[-1] == 429
    async with session.get("/v1/status") as answer:
        await answer.read()
    assert int(answer.headers["Retry-After"]) >= 1


async def test_changes_are_recorded_with_the_caller(
    control: FakeControl, serving: Serving, session: aiohttp.ClientSession
) -> None:
    operator = bearer(control.access.add(Role.OPERATE))
    path = "/v1/projects/shop/services/orders/scale"
    await session.get("/v1/status", headers=operator)
    await session.put(path, headers=operator, data=b'{"replicas": 3}')
    await session.delete("/v1/projects/shop", headers=operator)
    async with Client(serving.socket_path) as client:
        await client.drain("orders-a")
    scaled, refused, drained = control.access.entries
    assert (scaled.who, scaled.source, scaled.status) == (
        "token t1 (operate-)",
        "127.0.0.1",
        200,
    )
    assert (scaled.path, scaled.detail) == (path, '{"replicas": 3}')
    assert (refused.method, refused.status) == ("DELETE", 403)
    assert "needs the role admin" in refused.detail
    assert (drained.source, drained.role, drained.status) == ("socket", Role.ADMIN, 204)


async def test_tls_and_client_certificates(control: FakeControl, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("mesh", "127.0.0.1", "mesh.test")

    def subject(organization: str, unit: str = "") -> x509.Name:
        parts = [(NameOID.COMMON_NAME, "ann"), (NameOID.ORGANIZATION_NAME, organization)]
        if unit:
            parts.append((NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        return x509.Name([x509.NameAttribute(*part) for part in parts])

    settings = TcpSettings("127.0.0.1:0", issued.cert, issued.key, authority.ca)
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0", settings) as bound:
        url = f"https://{bound.tcp_address}"
        viewer = authority.issue("viewer", subject=subject("meshd:view", "shop"))
        async with Client(RemoteDaemon(url, "", authority.ca, viewer.cert, viewer.key)) as client:
            caller = await client.caller()
            assert (caller.who, caller.role, caller.project) == ("certificate ann", "view", "shop")
            with pytest.raises(ApiFailure, match="403: this needs the role operate"):
                await client.drain("x")
        for organization in ("meshd:root", "other"):
            other = authority.issue("other", subject=subject(organization))
            remote = RemoteDaemon(url, "", authority.ca, other.cert, other.key)
            async with Client(remote) as client:
                with pytest.raises(ApiFailure, match="401: a valid token is needed"):
                    await client.status()
        token = control.access.add(Role.ADMIN)
        async with Client(RemoteDaemon(url, token, authority.ca)) as client:
            assert (await client.caller()).who == "token t1 (admin-)"
        async with Client(RemoteDaemon(url, token)) as client:
            with pytest.raises(NoDaemon, match="certificate verify failed"):
                await client.status()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (TcpSettings("0.0.0.0:0"), "tokens must not be sent in clear text"),
        (TcpSettings("unix:/tmp/x"), "expected HOST:PORT"),
        (TcpSettings("127.0.0.1:0", key="k"), "need --api-cert"),
        (TcpSettings("127.0.0.1:0", "/nothing.pem"), "cannot be used"),
    ],
)
async def test_settings_that_are_not_safe_are_refused(
    control: FakeControl, tmp_path: Path, settings: TcpSettings, text: str
) -> None:
    with pytest.raises(ServeError, match=text):
        async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0", settings):
            raise AssertionError("it served")


Meshd = Callable[..., Awaitable[Result]]


@pytest.fixture
def meshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meshd:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MESHD_STATE", str(tmp_path))
    monkeypatch.delenv("MESHD_CONTEXT", raising=False)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    return run


async def test_commands_talk_to_the_chosen_context(
    control: FakeControl, serving: Serving, meshd: Meshd, tmp_path: Path
) -> None:
    made = await meshd("token", "create", "laptop", "--role", "operate", "--expires", "30d")
    assert made.exit_code == 0
    token = tmp_path / "token"
    token.write_text(made.output)
    url = f"http://{serving.tcp_address}"
    created = await meshd("context", "create", "prod", "--url", url, "--token-file", str(token))
    assert created.exit_code == 0, created.output
    file = tmp_path / "config" / "meshd" / "contexts.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await meshd("--context", "prod", "scale", "orders", "3")).exit_code == 0
    assert (await meshd("scale", "orders", "4")).exit_code == 0
    assert (await meshd("context", "use", "prod")).exit_code == 0
    assert (await meshd("scale", "orders", "5")).exit_code == 0
    assert (await meshd("--context", "default", "scale", "orders", "6")).exit_code == 0
    assert (await meshd("scale", "orders", "7", "--state", str(tmp_path))).exit_code == 0
    scaled = [e for e in control.access.entries if e.path.endswith("/scale")]
    assert [entry.source for entry in scaled] == [
        "127.0.0.1",
        "socket",
        "127.0.0.1",
        "socket",
        "socket",
    ]
    local = await meshd("backup", str(tmp_path / "x"))
    assert (local.exit_code, "works on the machine of the daemon only" in local.output) == (2, True)
    refused = await meshd("token", "ls")
    assert (refused.exit_code, "needs the role admin" in refused.output) == (1, True)
    listed = (await meshd("context", "ls")).output
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["default", "-"],
        ["prod", "*"],
    ]
    assert (
        control.access.tokens()[0].id
        in (await meshd("token", "ls", "--state", str(tmp_path))).output
    )
    revoked = await meshd("--context", "default", "token", "revoke", "t1")
    assert revoked.output == "t1: revoked\n"
    assert "401: a valid token is needed" in (await meshd("ps")).output
    assert (await meshd("context", "rm", "prod")).exit_code == 0
    assert (await meshd("ps")).exit_code == 0
    audit = (await meshd("audit")).output
    assert "DELETE /v1/tokens/t1" in audit.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("create", "a b", "--state", "/tmp"), "is not a valid name"),
        (("create", "default", "--state", "/tmp"), "exists"),
        (("create", "x"), "either --url or --state is needed"),
        (("create", "x", "--url", "http://10.0.0.1:9901"), "clear text"),
        (("create", "x", "--url", "https://mesh.test"), "expected https://HOST:PORT"),
        (("create", "x", "--url", "https://mesh.test:1"), "--token-file or --cert"),
        (("use", "nothing"), "known contexts: default"),
        (("rm", "default"), "cannot be removed"),
    ],
)
async def test_nonsense_about_contexts_is_explained(
    meshd: Meshd, arguments: tuple[str, ...], text: str
) -> None:
    answer = await meshd("context", *arguments)
    assert (answer.exit_code, text in answer.output) == (2, True), answer.output
    unknown = await meshd("--context", "nothing", "ps")
    assert (unknown.exit_code, "no context 'nothing'" in unknown.output) == (2, True)
