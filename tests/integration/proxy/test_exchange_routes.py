"""Routes: matching, rewriting, and the choice among services and revisions."""

import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from proxy.wire.snapshot import (
    AcmeChallenge,
    Balance,
    Endpoint,
    Fault,
    HashKey,
    HeaderEdit,
    Match,
    RateLimit,
    Route,
    Service,
    Split,
    Target,
)
from tests.support.proxy_policies import route
from tests.support.proxy_scene import (
    OK,
    Scene,
    answers,
    get,
    named_ok,
    on_uvloop,
    scene,
    service,
)


@on_uvloop
async def test_routes_by_host_path_and_header() -> None:
    async with scene() as s:
        services = []
        for name in ("a", "b", "c", "d"):
            origin = await s.origin(answers(named_ok(name.encode())))
            services.append(service(origin, name=name))
        s.install(
            *services,
            routes=(
                Route(id="1", targets=(Target("a"),)),
                Route(id="2", targets=(Target("b"),), host="shop.test", path="/b"),
                Route(id="3", targets=(Target("c"),), host="*.test"),
                Route(
                    id="4", targets=(Target("d"),), matches=(Match("header", "X-Canary"),), path="/"
                ),
            ),
        )
        wanted = [
            (get("/b/x"), b"b"),
            (get("/bx"), b"c"),
            (b"GET / HTTP/1.1\r\nHost: other\r\n\r\n", b"a"),
            (b"GET / HTTP/1.1\r\nHost: other\r\nx-canary: 1\r\n\r\n", b"d"),
        ]
        client = await s.client()
        for request, body in wanted:
            await client.send(request)
            assert (await client.response())[2] == body


@on_uvloop
async def test_no_route_is_404_and_keeps_the_connection() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(host="elsewhere"),))
        client = await s.ask(get() + b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        assert (await client.response())[0] == 404
        assert (await client.response())[0] == 200


CHALLENGE = AcmeChallenge("http-01", "shop.test", "tok", "tok.print")


@on_uvloop
async def test_a_certificate_authority_gets_its_answer_while_a_challenge_is_open() -> None:
    """With a route or without, also where other requests take the fast path. Other paths below the
    same prefix belong to the services."""
    path = "/.well-known/acme-challenge/"
    ask = get(path + "tok") + get(path + "other") + get("/")
    async with scene() as s:
        origin = await s.origin(answers(OK))
        routes = (route(host="shop.test"),)
        for challenges, expected in (
            ((CHALLENGE,), [(200, b"tok.print"), (200, b"ok"), (200, b"ok")]),
            ((), [(200, b"ok")] * 3),
        ):
            s.install(service(origin), routes=routes, challenges=challenges)
            for _ in range(2):
                client = await s.ask(ask)
                found = [await client.response() for _ in expected]
                assert [(status, body) for status, _, body in found] == expected
        s.install(service(origin), routes=(route(host="elsewhere"),), challenges=(CHALLENGE,))
        found = await (await s.ask(get(path + "tok"))).response()
        assert (found[0], found[2]) == (200, b"tok.print")
        assert (await (await s.ask(get(path + "other"))).response())[0] == 404


@pytest.mark.parametrize(
    ("more", "path", "target"),
    [
        ({"path": "/api", "strip": True}, "/api/v1?x=1", b"/v1?x=1"),
        ({"path": "/api", "strip": True}, "/api", b"/"),
        ({"path": "/api", "strip": True}, "/api?x", b"/?x"),
        ({"path": "/api", "strip": True}, "/api//evil.example/x", b"/evil.example/x"),
        ({"path": "/api", "strip": True}, "/api///", b"/"),
        ({"path": "/api", "strip": True}, "/api/\\evil.example", b"/evil.example"),
        ({"path": "/api", "strip": True}, "/api/a/../b//c?/../..", b"/a/../b//c?/../.."),
        ({"path": "/", "strip": True}, "//evil.example", b"/evil.example"),
        ({"path": "/api", "replace": "/"}, "/api//evil.example", b"/evil.example"),
        ({"path": "/api", "replace": "/v2"}, "/api/x", b"/v2/x"),
        ({"path": "/", "replace": "/base"}, "/x//y", b"/base/x//y"),
    ],
)
@on_uvloop
async def test_prefixes_are_stripped_and_replaced(
    more: dict[str, object], path: str, target: bytes
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(**more),))
        assert (await (await s.ask(get(path))).response())[0] == 200
        assert origin.visits[0].raw.split(b" ")[1] == target


@pytest.mark.parametrize(
    "rest", ["/../admin", "/a/../../b", "/%2E%2e/x", "/..%2fx", "/\\..\\x", "/..;v=1/x", "/./../x"]
)
@pytest.mark.parametrize("more", [{"strip": True}, {"replace": "/v2"}])
@on_uvloop
async def test_a_path_that_leads_out_of_a_rewritten_prefix_is_refused(
    more: dict[str, object], rest: str
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(path="/api", **more),))
        assert (await (await s.ask(get("/api" + rest))).response())[0] == 400
        assert not origin.visits


@pytest.mark.parametrize(
    ("more", "sent", "trusted", "wanted"),
    [
        ({"path": "/api", "strip": True}, (), False, [b"/api"]),
        ({"path": "/api", "strip": True}, ("X-Forwarded-Prefix: /mine",), False, [b"/api"]),
        ({"path": "/api", "strip": True}, ("X-Forwarded-Prefix: /outer",), True, [b"/outer/api"]),
        ({"path": "/api", "strip": True}, ("x-forwarded-prefix: /a, /b/",), True, [b"/a/b/api"]),
        ({"path": "/api", "strip": True}, ("X-Forwarded-For: 192.0.2.1",), True, [b"/api"]),
        ({"path": "/"}, ("X-Forwarded-Prefix: /outer",), True, [b"/outer"]),
        ({"path": "/"}, ("X-Forwarded-Prefix: /mine",), False, []),
        ({"path": "/api", "replace": "/v2"}, (), False, []),
        (
            {
                "path": "/api",
                "strip": True,
                "request_headers": HeaderEdit(set=(("X-A", "1"),)),
            },
            ("X-Forwarded-Prefix: /mine",),
            False,
            [b"/api"],
        ),
    ],
)
@on_uvloop
async def test_a_stripped_prefix_is_sent(
    more: dict[str, object], sent: tuple[str, ...], trusted: bool, wanted: list[bytes]
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        networks = ("127.0.0.0/8",) if trusted else ()
        s.install(service(origin), routes=(route(**more),), trusted_proxies=networks)
        client = await s.client()
        for _ in range(3):
            await client.send(get("/api/x", *sent))
            assert (await client.response())[0] == 200
        heads = [head for visit in origin.visits for head in visit.raw.split(b"\r\n\r\n") if head]
        assert len(heads) == 3
        for head in heads:
            lines = [line.partition(b": ") for line in head.split(b"\r\n")]
            found = [value for name, _, value in lines if name.lower() == b"x-forwarded-prefix"]
            assert found == wanted


@on_uvloop
async def test_headers_are_edited_both_ways() -> None:
    async with scene() as s:
        origin = await s.origin(
            answers(b"HTTP/1.1 200 OK\r\nServer: x\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")
        )
        edits = HeaderEdit(set=(("X-A", "new"),), add=(("X-B", "b"),), remove=("server", "cookie"))
        s.install(service(origin), routes=(route(request_headers=edits, response_headers=edits),))
        client = await s.ask(get("/", "x-a: old", "Cookie: c", "X-B: mine"))
        _, head, _ = await client.response()
        assert b"X-A: new\r\n" in head
        assert b"X-B: b\r\n" in head
        assert b"Server" not in head
        seen = origin.visits[0].raw
        assert b"X-A: new\r\n" in seen
        assert b"old" not in seen
        assert b"Cookie" not in seen
        assert b"X-B: mine\r\n" in seen
        assert b"X-B: b\r\n" in seen


EDITS = HeaderEdit(
    set=(("Access-Control-Allow-Origin", "*"), ("Content-Type", "x/y"), ("location", "/no")),
    add=(("X-B", "b"), ("ETag", "1")),
    remove=("date", "content-language"),
)


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 502),
        ({"redirect": "https://x/"}, 308),
        ({"rate_limit": RateLimit(rate=0.001, burst=1)}, 429),
        ({"fault": Fault(share=1.0, abort=503)}, 503),
        ({"path": "/", "strip": True}, 400),
    ],
)
@on_uvloop
async def test_the_edits_of_a_route_apply_to_the_proxys_own_responses(
    more: dict[str, object], status: int, always: bool
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(b"broken\r\n\r\n"))
        edits = msgspec.structs.replace(EDITS, always=always)
        s.install(service(origin), routes=(route(response_headers=edits, **more),))
        found, head, body = 0, b"", b""
        for _ in range(2):
            client = await s.ask(get("/../a" if status == 400 else "/"))
            found, head, body = await client.response()
        assert found == status
        assert str(status).encode() in body
        assert (b"Access-Control-Allow-Origin: *\r\n" in head) is always
        assert (b"X-B: b\r\n" in head) is always
        assert (b"\r\nDate: " in head) is not always
        assert b"Content-Type: text/plain; charset=utf-8\r\n" in head
        assert b"ETag" not in head
        assert (b"Location: https://x/\r\n" in head) is (status == 308)
        assert b"/no" not in head


@on_uvloop
async def test_errors_and_switches_of_protocols_set_the_sticky_cookie() -> None:
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    async with scene() as s:
        broken = [await s.origin(answers(b"broken\r\n\r\n")) for _ in range(2)]
        switching = [await s.origin(answers(switch)) for _ in range(2)]
        s.install(
            service(*broken, name="a", balance=Balance(sticky_cookie="stuck")),
            service(*switching, name="b", balance=Balance(sticky_cookie="stuck")),
            routes=(
                Route(id="1", targets=(Target("a"),), path="/a", response_headers=EDITS),
                Route(id="2", targets=(Target("b"),), path="/b", response_headers=EDITS),
            ),
        )
        status, head, body = await (await s.ask(get("/a"))).response()
        assert (status, body) == (502, b"502 Bad Gateway: the origin's answer is not valid\n")
        assert head.count(b"Set-Cookie: stuck=") == 1
        client = await s.ask(get("/b", "Connection: Upgrade", "Upgrade: websocket"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101")
        assert head.count(b"Set-Cookie: stuck=") == 1
        assert b"Access-Control-Allow-Origin: *\r\n" in head
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head


@on_uvloop
async def test_redirects_rate_limits_and_faults_are_answered_by_the_proxy() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            routes=(
                route(path="/old", redirect="https://{host}{path}{query}", redirect_status=301),
                route(path="/rated", rate_limit=RateLimit(rate=0.01, burst=2)),
                route(path="/broken", fault=Fault(share=1.0, abort=418)),
                route(path="/slow", fault=Fault(share=1.0, delay=0.2)),
            ),
        )
        client = await s.ask(get("/old/x?y=1"))
        status, head, _ = await client.response()
        assert status == 301
        assert b"Location: https://shop.test/old/x?y=1\r\n" in head
        seen = []
        for _ in range(3):
            await client.send(get("/rated"))
            status, head, _ = await client.response()
            seen.append(status)
        assert seen == [200, 200, 429]
        assert b"Retry-After: " in head
        await client.send(get("/broken"))
        assert (await client.response())[0] == 418
        begun = time.monotonic()
        await client.send(get("/slow"))
        assert (await client.response())[0] == 200
        assert time.monotonic() - begun > 0.19


@on_uvloop
async def test_a_split_over_revisions_follows_the_weights() -> None:
    async with scene() as s:
        one, two = await s.origin(answers(named_ok(b"1"))), await s.origin(answers(named_ok(b"2")))
        endpoints = tuple(
            Endpoint(id=f"e{n}", host="127.0.0.1", port=o.port, revision=f"v{n}")
            for n, o in ((1, one), (2, two))
        )
        split = (Target("shop", "v1", 3.0), Target("shop", "v2", 1.0))
        s.install(Service("shop", "1", endpoints), routes=(Route(id="r", targets=split),))
        client = await s.client()
        counts = {b"1": 0, b"2": 0}
        for _ in range(400):
            await client.send(get())
            counts[(await client.response())[2]] += 1
        assert 60 < counts[b"2"] < 140


@on_uvloop
async def test_revisions_share_by_weight_and_condition_without_a_lost_request() -> None:
    async with scene() as s:
        one, two = await s.origin(answers(named_ok(b"1"))), await s.origin(answers(named_ok(b"2")))
        endpoints = tuple(
            Endpoint(id=f"e{n}", host="127.0.0.1", port=o.port, revision=f"v{n}")
            for n, o in ((1, one), (2, two))
        )
        canary = (Match("header", "X-Canary", "yes"),)

        async def seen(split: Split, headers: str = "", sticky: str = "") -> Counter[bytes]:
            balance = Balance("round-robin", sticky_cookie=sticky)
            s.install(Service("shop", repr(split), endpoints, split=split, balance=balance))
            client = await s.client()
            found: Counter[bytes] = Counter()
            for _ in range(200):
                await client.send(get("/", headers))
                found[(await client.response())[2]] += 1
            return found

        counts = await seen(Split((("v1", 0.75), ("v2", 0.25))))
        assert 25 < counts[b"2"] < 80
        assert await seen(Split((("v1", 1.0), ("v2", 0.0)))) == {b"1": 200}
        by_header = Split((("v1", 1.0),), canary, "v2")
        assert await seen(by_header, "X-Canary: yes") == {b"2": 200}
        assert await seen(by_header, "X-Canary: no") == {b"1": 200}
        assert set(await seen(Split((("v3", 1.0),)))) == {b"1", b"2"}
        # A client that sticks to a replica does not change sides, until that side is closed.
        s.install(Service("shop", "s", endpoints, balance=Balance(sticky_cookie="stick")))
        client = await s.ask(get())
        _, head, first = await client.response()
        cookie = "Cookie: " + head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        mine, other = (("v1", "v2"), ("v2", "v1"))[first == b"2"]
        half = Split(((mine, 0.01), (other, 0.99)))
        assert await seen(half, cookie, "stick") == {first: 200}
        assert (await seen(Split(((other, 1.0),)), cookie, "stick"))[first] == 0


@on_uvloop
async def test_stickiness_by_cookie_and_by_hash() -> None:
    async with scene() as s:
        origins = [await s.origin(answers(named_ok(b"%d" % n))) for n in range(3)]
        s.install(service(*origins, balance=Balance(sticky_cookie="stick")))
        client = await s.ask(get())
        _, head, first = await client.response()
        cookie = head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        for _ in range(10):
            await client.send(get("/", f"Cookie: a=b; {cookie}"))
            _, head, body = await client.response()
            assert body == first
            assert b"Set-Cookie" not in head
        s.install(service(*origins, balance=Balance("maglev", HashKey("header", "X-User"))))
        for user in range(10):
            bodies = set()
            for _ in range(3):
                await client.send(get("/", f"X-User: {user}"))
                bodies.add((await client.response())[2])
            assert len(bodies) == 1


GUARDED = (
    Route(id="1", targets=(Target("shop"),)),
    Route(id="2", targets=(Target("shop"),), path="/admin", rate_limit=RateLimit(0.001, 1)),
)


async def statuses(s: Scene, *paths: str) -> list[int]:
    """Return the status of the response to each path, with a connection each."""
    found = []
    for path in paths:
        client = await s.ask(get(path))
        found.append((await client.response())[0])
        client.close()
    return found


@on_uvloop
async def test_a_path_around_a_limit_is_refused_with_400() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=GUARDED)
        around = (
            "//admin",
            "/x/../admin",
            "/%61dmin",
            "/admin;a",
            "/admin%2f..",
            "/ADMIN",
            "/\\admin",
        )
        assert await statuses(s, "/", "/a//b/../c?q=//admin", "/admin") == [200] * 3
        assert await statuses(s, "/admin", *around) == [429, *[400] * len(around)]
        assert sum(visit.raw.count(b"GET ") for visit in origin.visits) == 3
        report = s.plane.report(0.0, 1.0)
        assert report.refused["ambiguous-path"] == len(around)


@pytest.mark.parametrize(
    ("route_policy", "listener_policy", "status"),
    [
        ("", "", 400),
        ("", "as-is", 200),
        ("", "strict", 400),
        ("as-is", "strict", 200),
        ("strict", "as-is", 400),
    ],
)
@on_uvloop
async def test_the_path_policy_of_the_route_counts_before_that_of_the_listener(
    route_policy: str, listener_policy: str, status: int
) -> None:
    async with scene(paths=listener_policy) as s:
        origin = await s.origin(answers(OK))
        open_route = msgspec.structs.replace(GUARDED[0], paths=route_policy)
        s.install(service(origin), routes=(open_route, GUARDED[1]))
        assert await statuses(s, "//admin") == [status]


@pytest.mark.parametrize(
    ("guard", "status"),
    [
        ({}, 200),
        ({"redirect": "https://x/"}, 200),
        ({"matches": (Match("header", "X-Key"),)}, 400),
        ({"fault": Fault(1.0, 0.0, 403)}, 400),
        ({"fault": Fault(1.0, 1.0)}, 200),
        ({"targets": (Target("inner"),)}, 400),
        ({"rate_limit": RateLimit(1, 1), "host": "*"}, 400),
        ({"rate_limit": RateLimit(1, 1), "host": "other.test"}, 200),
    ],
)
@on_uvloop
async def test_which_routes_are_guarded(guard: dict[str, Any], status: int) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        guarded = {"targets": (Target("shop"),), "host": "shop.test", **guard}
        s.install(
            service(origin),
            service(origin, name="inner", allow=("p/a",)),
            routes=(
                Route(id="1", targets=(Target("shop"),), host="shop.test", path="/open"),
                Route(id="2", path="/admin", **guarded),
                Route(id="3", targets=(Target("shop"),)),
            ),
        )
        assert await statuses(s, "/open/..//admin", "/open/x") == [status, 200]
