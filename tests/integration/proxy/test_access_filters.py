"""Passwords and forward authentication on routes, on real sockets."""

import asyncio
import base64
import threading
from typing import Any

import bcrypt
import pytest

from proxy.filters.credentials import PasswordTable
from proxy.request_filters import basic_auth, begin
from proxy.wire.filters import BasicAuth, Cors, ErrorPage, Filters, ForwardAuth
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_policies import close_after_request, route, service_report
from tests.support.proxy_scene import (
    OK,
    Scene,
    Visit,
    answers,
    get,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import wait_until

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
USERS = BasicAuth((("ann", HASH), ("bob", HASH.replace("$2b$", "$2y$", 1))), 'The "shop"')


def basic(text: bytes) -> str:
    return "Authorization: Basic " + base64.b64encode(text).decode()


def lines_of(raw: bytes) -> list[bytes]:
    return raw.lower().split(b"\r\n")


# --- passwords


@on_uvloop
async def test_listed_users_pass_and_the_service_gets_the_name_only() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(filters=Filters(basic_auth=USERS)),))
        client = await s.client()
        for user in (b"ann", b"bob", b"ann"):
            await client.send(
                get("/", basic(user + b":secret"), "X-Auth-User: root", "X_Auth_User: root")
            )
            assert (await client.response())[0] == 200
            seen = lines_of(origin.visits[0].raw)
            origin.visits[0].raw = b""
            assert [each for each in seen if b"auth" in each] == [b"x-auth-user: " + user]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (basic(b"ann:wrong"),),
        (basic(b"eve:secret"),),
        (basic(b"ann:"),),
        (basic(b"ann"),),
        (basic(b":secret"),),
        (basic(b"ann:secret\0"),),
        (basic(b"ann:secret\nx"),),
        (basic(b"ann:" + b"s" * 73),),
        (basic(b"\xff\xfe:secret"),),
        (basic(b"a" * 5000 + b":secret"),),
        ("Authorization: Basic ???",),
        ("Authorization: Basic",),
        ("Authorization: Bearer YW5uOnNlY3JldA==",),
        (basic(b"ann:secret"), basic(b"ann:secret")),
    ],
)
@on_uvloop
async def test_other_requests_are_refused(lines: tuple[str, ...]) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(filters=Filters(basic_auth=USERS)),))
        client = await s.ask(get("/", *lines))
        status, head, _ = await client.response()
        assert status == 401
        assert b'\r\nWWW-Authenticate: Basic realm="The \\"shop\\"", charset="UTF-8"\r\n' in head
        assert not origin.visits
        report = service_report(s)
        assert report.arrivals == 0, "it does not count as load"  # type: ignore[attr-defined]
        await client.send(get("/", basic(b"ann:secret")))
        assert (await client.response())[0] == 200, "the connection is still usable"


@on_uvloop
async def test_a_changed_password_counts_at_once() -> None:
    other = BasicAuth((("ann", bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode()),))
    async with scene() as s:
        origin = await s.origin(answers(OK))
        client = await s.client()
        for users, password, status in (
            (USERS, b"secret", 200),
            (other, b"secret", 401),
            (other, b"new", 200),
        ):
            s.install(service(origin), routes=(route(filters=Filters(basic_auth=users)),))
            await client.send(get("/", basic(b"ann:" + password)))
            assert (await client.response())[0] == status


@on_uvloop
async def test_too_many_checks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic_auth, "MAX_PENDING", 0)
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(filters=Filters(basic_auth=USERS)),))
        status, head, _ = await (await s.ask(get("/", basic(b"ann:guess")))).response()
        assert status == 503
        assert b"Retry-After: 1" in head


@on_uvloop
async def test_a_body_that_arrives_during_the_check_reaches_the_service() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        users = BasicAuth((("slow", bcrypt.hashpw(b"secret", bcrypt.gensalt(8)).decode()),))
        s.install(service(origin), routes=(route(filters=Filters(basic_auth=users)),))
        body = b"x" * 200_000
        whole = post(body, basic(b"slow:secret"))
        client = await s.ask(whole[: 10 - len(body)])
        await client.send(body[10:])
        assert (await client.response())[0] == 200
        assert origin.visits[0].raw.endswith(body)


@on_uvloop
async def test_a_client_that_leaves_during_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(PasswordTable, "check", lambda table, given: release.wait(30))
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(filters=Filters(basic_auth=USERS)),))
        client = await s.ask(get("/", basic(b"ann:left")))
        await wait_until(lambda: begin.password_checks()._pending)
        client.close()
        await wait_until(lambda: not s.plane.clients)
        release.set()
        await wait_until(lambda: not begin.password_checks()._pending)
        assert not origin.visits
        assert not s.plane.services["shop"].in_flight


def test_no_log_has_a_hash() -> None:
    assert HASH not in repr(Filters(basic_auth=USERS))
    assert "ann" in repr(Filters(basic_auth=USERS))


# --- forward authentication

DECIDER = ForwardAuth("auth", "/verify?x=1", 5.0, ("X-User", "X-Groups"))


async def decide(s: Scene, script: Any, config: ForwardAuth = DECIDER, **filters: Any) -> Any:
    """Install a service behind one that decides; return the origins of both."""
    origin, auth = await s.origin(answers(OK)), await s.origin(script)
    s.install(
        service(origin),
        service(auth, name="auth"),
        routes=(route(path="/shop", strip=True, filters=Filters(forward_auth=config, **filters)),),
    )
    return origin, auth


def answer(status: int, *lines: str, body: bytes = b"") -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@on_uvloop
async def test_a_request_passes_with_fields_of_the_answer() -> None:
    async with scene() as s:
        origin, auth = await decide(s, answers(answer(204, "X-User: ann", "X-Other: 1")))
        client = await s.client()
        for _ in range(3):
            body = b"hello"
            head = (
                b"POST /shop/a?b=1 HTTP/1.1\r\nHost: shop.test\r\nCookie: s=1\r\nX-User: root\r\n"
                b"x_groups: admin\r\nX-Forwarded-Uri: /public\r\nIf-None-Match: 1\r\n"
                b"Connection: X-User\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\n"
            )
            await client.send(head + body)
            assert (await client.response())[0] == 200
            asked = auth.visits[0].raw
            assert asked.startswith(b"GET /verify?x=1 HTTP/1.1\r\nHost: auth\r\n")
            found = lines_of(asked)
            for line in (
                b"x-forwarded-method: post",
                b"x-forwarded-uri: /shop/a?b=1",
                b"x-forwarded-host: shop.test",
                b"x-forwarded-for: 127.0.0.1",
                b"cookie: s=1",
            ):
                assert found.count(line) == 1, line
            for name in (b"content-", b"if-none-match", b"connection"):
                assert not [each for each in found if each.startswith(name)]
            seen = origin.visits[0].raw
            assert seen.startswith(b"POST /a?b=1 ")
            assert seen.endswith(body)
            found = lines_of(seen)
            assert [each for each in found if each.startswith(b"x-user")] == [b"x-user: ann"]
            assert not [each for each in found if b"groups" in each or b"other" in each]
            origin.visits[0].raw = auth.visits[0].raw = b""


@pytest.mark.parametrize(
    "refusal",
    [
        answer(302, "Location: https://login.test/", "Set-Cookie: a=1", "Set-Cookie: b=2"),
        answer(401, "WWW-Authenticate: Bearer", body=b"who are you?"),
        answer(403, body=b"no"),
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nX-Own: 1\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        answer(500, body=b"oops"),
    ],
)
@on_uvloop
async def test_other_answers_go_to_the_client(refusal: bytes) -> None:
    pages = (ErrorPage("4xx", "<p>page</p>"), ErrorPage("5xx", "<p>page</p>"))
    async with scene() as s:
        origin, _ = await decide(
            s, answers(refusal), error_pages=pages, cors=Cors(("https://a.test",))
        )
        client = await s.client()
        for _ in range(2):
            await client.send(get("/shop/", "Origin: https://a.test"))
            status, head, body = await client.response()
            assert status == int(refusal[9:12])
            assert b"Access-Control-Allow-Origin: https://a.test\r\n" in head
            for line in refusal.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
                framing = line.startswith(b"Transfer-Encoding")
                assert (line + b"\r\n" in head) != framing
            assert body in refusal
            assert body or refusal.endswith(b"\r\n\r\n")
        assert not origin.visits
        assert service_report(s).arrivals == 0  # type: ignore[attr-defined]


async def _silent(visit: Visit) -> None:
    await visit.head()
    await visit.wait_closed()


async def _large(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    await visit.wait_closed()


async def _switching(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HTTP/1.1 101 Ok\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    await visit.wait_closed()


async def _broken(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")


async def _nonsense(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HELLO\r\n\r\n")


@pytest.mark.parametrize(
    "script", [_silent, _large, _switching, _broken, _nonsense, close_after_request]
)
@on_uvloop
async def test_without_a_complete_answer_nothing_passes(script: Any) -> None:
    async with scene() as s:
        origin, _ = await decide(s, script, ForwardAuth("auth", timeout=0.3))
        status, head, body = await (await s.ask(get("/shop"))).response()
        assert status == 503
        assert b"Retry-After: 1" in head
        assert b"the service that decides about access did not answer" in body
        assert not origin.visits
        await wait_until(lambda: not s.plane.services["auth"].in_flight)
        assert s.plane.streams_in_flight == 0


@on_uvloop
async def test_a_service_that_does_not_exist_or_does_not_run_lets_nothing_pass() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        for deciders in ((), (service(name="auth"),)):
            filters = Filters(forward_auth=ForwardAuth("auth", timeout=0.2))
            s.install(service(origin), *deciders, routes=(route(filters=filters),))
            assert (await (await s.ask(get())).response())[0] == 503
        assert not origin.visits


@on_uvloop
async def test_a_client_that_leaves_while_the_service_decides() -> None:
    release = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await release.wait()
        await visit.send(answer(200))

    async with scene() as s:
        origin, auth = await decide(s, script)
        client = await s.ask(get("/shop"))
        await wait_until(lambda: auth.visits and auth.visits[0].raw)
        client.close()
        await wait_until(lambda: len(s.plane.clients) == 1)
        release.set()
        await wait_until(lambda: not s.plane.clients)
        assert not origin.visits


@on_uvloop
async def test_a_password_comes_before_the_service_that_decides() -> None:
    async with scene() as s:
        _, auth = await decide(s, answers(answer(200)), basic_auth=USERS)
        assert (await (await s.ask(get("/shop"))).response())[0] == 401
        assert not auth.visits
        client = await s.ask(get("/shop", basic(b"ann:secret")))
        assert (await client.response())[0] == 200


@on_uvloop
async def test_a_path_with_two_readings_does_not_go_around_a_password() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            routes=(route(), route(path="/admin", filters=Filters(basic_auth=USERS))),
        )
        for path in ("/%61dmin", "//admin", "/x/../admin", "/ADMIN"):
            assert (await (await s.ask(get(path))).response())[0] == 400
        assert not origin.visits


@on_uvloop
async def test_access_over_http2() -> None:
    async with http2_scene() as s:
        origin, auth = await s.origin(answers(OK)), await s.origin(answers(answer(403, body=b"no")))
        s.install(
            service(origin),
            service(auth, name="auth"),
            routes=(
                route(filters=Filters(basic_auth=USERS)),
                route(path="/asked", filters=Filters(forward_auth=DECIDER)),
            ),
        )
        async with http2_client(s) as client:
            assert (await client.get(b"/")).status == 401
            sent = basic(b"ann:secret").partition(": ")[2].encode()
            found = await client.get(b"/", fields=[(b"authorization", sent)])
            assert (found.status, found.body) == (200, b"ok")
            found = await client.get(b"/asked")
            assert (found.status, found.body, found.code) == (403, b"no", 0)
