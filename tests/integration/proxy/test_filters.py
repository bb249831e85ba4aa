"""Filters of routes on real sockets: maintenance, error pages, other origins, the waiting page."""

from typing import Any

import pytest

from proxy.wire.filters import Cors, ErrorPage, Filters, Maintenance, WaitingPage
from proxy.wire.snapshot import HeaderEdit, Parking
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_policies import close_after_request, route, service_report
from tests.support.proxy_scene import OK, answers, get, on_uvloop, scene, service

PAGE = "<h1>Sorry – back soon</h1>"
BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


def filtered(**filters: Any) -> Any:
    return route(filters=Filters(**filters))


def fields(head: bytes) -> dict[str, list[str]]:
    """Return the fields of a response head by lower-case name."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


# --- maintenance


@on_uvloop
async def test_maintenance_answers_for_the_service() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(filtered(maintenance=Maintenance(PAGE, 300)),))
        client = await s.client()
        await client.send(get("/", BROWSER) + b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, head, body = await client.response()
        assert (status, body.decode()) == (503, PAGE)
        found = fields(head)
        assert found["retry-after"] == ["300"]
        assert found["content-type"] == ["text/html; charset=utf-8"]
        assert found["cache-control"] == ["no-store"]
        head = await client.head()
        assert fields(head)["content-length"] == [str(len(PAGE.encode()))]
        await client.send(get("/", "Accept: application/json"))
        status, head, body = await client.response()
        assert (status, fields(head)["content-type"]) == (503, ["application/json"])
        assert b"under maintenance" in body
        assert not origin.visits


@pytest.mark.parametrize(
    ("allow", "status"),
    [(("127.0.0.0/8",), 200), (("::1", "127.0.0.1"), 200), (("10.0.0.0/8", "fe80::/10"), 503)],
)
@on_uvloop
async def test_some_networks_reach_a_service_under_maintenance(
    allow: tuple[str, ...], status: int
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(filtered(maintenance=Maintenance(allow=allow)),))
        found = await (await s.ask(get("/", "X-Forwarded-For: 10.0.0.1"))).response()
        assert found[0] == status, "the field of a client that is not trusted does not count"


@on_uvloop
async def test_maintenance_begins_and_ends_with_a_snapshot_on_an_open_connection() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        client = await s.client()
        for filters, status in (
            (None, 200),
            (Filters(maintenance=Maintenance()), 503),
            (None, 200),
        ):
            s.install(service(origin), routes=(route(filters=filters),))
            await client.send(get())
            assert (await client.response())[0] == status


# --- error pages


@on_uvloop
async def test_error_pages_replace_the_errors_of_the_proxy_only() -> None:
    bad = b"HTTP/1.1 502 Own\r\nContent-Length: 3\r\n\r\nown"
    pages = (ErrorPage("5xx", PAGE), ErrorPage("504", "<p>late</p>"))
    async with scene() as s:
        origin = await s.origin(answers(bad))
        gone = await s.origin(close_after_request)
        s.install(
            service(origin),
            service(gone, name="gone"),
            routes=(
                route(filters=Filters(error_pages=pages)),
                route("gone", path="/gone", filters=Filters(error_pages=pages)),
            ),
        )
        client = await s.ask(get("/") + get("/gone", BROWSER))
        assert (await client.response())[2] == b"own"
        status, head, body = await client.response()
        assert (status, body.decode()) == (502, PAGE)
        assert "x-request-id" in fields(head)


@on_uvloop
async def test_a_json_page_goes_to_all_clients() -> None:
    async with scene() as s:
        gone = await s.origin(close_after_request)
        s.install(service(gone), routes=(filtered(error_pages=(ErrorPage("502", '{"e": 1}'),)),))
        for accept in (BROWSER, "Accept: application/json"):
            status, head, body = await (await s.ask(get("/", accept))).response()
            assert (status, body) == (502, b'{"e": 1}')
            assert fields(head)["content-type"] == ["application/json"]


# --- other origins

APP = "https://app.example"
CORS = Cors((APP, "https://*.shop.example"), ("GET", "PUT"), ("*",), ("X-Total",), True, 60)


def preflight(origin: str, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return (
        f"OPTIONS /x HTTP/1.1\r\nHost: shop.test\r\nOrigin: {origin}\r\n"
        f"Access-Control-Request-Method: PUT\r\n{more}\r\n"
    ).encode()


@on_uvloop
async def test_the_proxy_answers_preflights() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(filtered(cors=CORS),))
        client = await s.ask(
            preflight(APP, "Access-Control-Request-Headers: x-one, x two, content-type")
            + preflight("https://evil.example")
            + get("/after")
        )
        head = await client.head()
        found = fields(head)
        assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert "content-length" not in found
        assert "content-type" not in found
        assert found["access-control-allow-origin"] == [APP]
        assert found["access-control-allow-methods"] == ["GET, PUT"]
        assert found["access-control-allow-headers"] == ["x-one, content-type"]
        assert found["access-control-allow-credentials"] == ["true"]
        assert found["access-control-max-age"] == ["60"]
        refused = await client.head()
        assert refused.startswith(b"HTTP/1.1 204 ")
        assert not [name for name in fields(refused) if name.startswith("access-control-")]
        assert (await client.response())[0] == 200
        assert len(origin.visits) == 1
        assert origin.visits[0].raw.startswith(b"GET /after ")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (APP, True),
        ("https://APP.example", True),
        ("https://a.b.shop.example", True),
        ("https://shop.example", False),
        ("https://evilshop.example", False),
        ("https://app.example.evil.test", False),
        ("https://evil.test/.shop.example", False),
        ("https://evil.test#.shop.example", False),
        ("https://evil.test:1@a.shop.example", False),
        ("http://app.example", False),
        ("https://app.example:444", False),
        ("null", False),
        ("", False),
        (f"{APP}, https://evil.test", False),
    ],
)
@on_uvloop
async def test_only_listed_origins_may_read_responses(origin: str, allowed: bool) -> None:
    own = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
        b"Access-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\nok"
    )
    async with scene() as s:
        made = await s.origin(answers(own))
        s.install(service(made), routes=(filtered(cors=CORS),))
        _, head, _ = await (await s.ask(get("/", f"Origin: {origin}"))).response()
        found = fields(head)
        assert found.get("access-control-allow-origin", []) == ([origin] if allowed else [])
        assert found.get("access-control-allow-credentials", []) == (["true"] if allowed else [])
        assert found.get("access-control-expose-headers", []) == (["X-Total"] if allowed else [])
        assert found["vary"] == ["Accept", "Origin"]


@on_uvloop
async def test_errors_of_the_proxy_can_be_read_by_other_origins() -> None:
    async with scene() as s:
        gone = await s.origin(close_after_request)
        s.install(
            service(gone), routes=(filtered(cors=CORS, error_pages=(ErrorPage("502", PAGE),)),)
        )
        status, head, body = await (await s.ask(get("/", f"Origin: {APP}"))).response()
        assert (status, body.decode()) == (502, PAGE)
        assert fields(head)["access-control-allow-origin"] == [APP]


@on_uvloop
async def test_any_origin_needs_no_vary_and_edits_of_the_route_come_first() -> None:
    edits = HeaderEdit(set=(("Access-Control-Allow-Origin", "https://x"), ("X-Own", "1")))
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            routes=(route(filters=Filters(cors=Cors(("*",))), response_headers=edits),),
        )
        _, head, _ = await (await s.ask(get("/", "Origin: https://a.test"))).response()
        assert fields(head)["access-control-allow-origin"] == ["*"]
        assert fields(head)["x-own"] == ["1"]
        assert "vary" not in fields(head)


@on_uvloop
async def test_other_options_requests_reach_the_service() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(filtered(cors=CORS),))
        ask = f"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: {APP}\r\n\r\n".encode()
        assert (await (await s.ask(ask)).response())[2] == b"ok"


# --- the waiting page


def asleep(timeout: float = 20.0) -> Any:
    return service(parking=Parking(timeout=timeout))


@on_uvloop
async def test_a_browser_gets_a_page_while_the_service_starts() -> None:
    async with scene() as s:
        s.install(asleep(), routes=(filtered(waiting_page=WaitingPage(0.05, 3)),))
        client = await s.ask(get("/", BROWSER))
        status, head, body = await client.response()
        assert status == 503
        assert b"This service is starting" in body
        found = fields(head)
        assert found["refresh"] == ["3"]
        assert found["retry-after"] == ["1"]
        assert found["cache-control"] == ["no-store"]
        assert service_report(s).failures == {"waking": 1}  # type: ignore[attr-defined]
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(filtered(waiting_page=WaitingPage(0.05)),))
        await client.send(get("/", BROWSER))
        assert (await client.response())[0] == 200, "the connection is still usable"


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/"),
        get("/", "Accept: */*"),
        get("/", "Accept: application/json"),
        get("/", "Accept: text/html;q=0"),
        b"POST / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nContent-Length: 0\r\n\r\n",
    ],
)
@on_uvloop
async def test_other_requests_wait_for_the_service(request_bytes: bytes) -> None:
    async with scene() as s:
        page = filtered(waiting_page=WaitingPage(after=0.0))
        s.install(asleep(), routes=(page,))
        waiting = await s.ask(request_bytes)
        browser = await s.ask(get("/", BROWSER))
        assert (await browser.response())[0] == 503
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(page,))
        assert (await waiting.response())[0] == 200


@on_uvloop
async def test_other_requests_get_a_503_in_the_end() -> None:
    async with scene() as s:
        s.install(asleep(0.1), routes=(filtered(waiting_page=WaitingPage(after=0.0)),))
        status, head, body = await (await s.ask(get())).response()
        assert (status, fields(head)["retry-after"]) == (503, ["1"])
        assert b"no replica became ready in time" in body


@on_uvloop
async def test_a_replica_that_is_ready_in_time_answers_the_browser() -> None:
    async with scene() as s:
        page = filtered(waiting_page=WaitingPage(after=20.0, page=PAGE))
        s.install(asleep(30.0), routes=(page,))
        browser = await s.ask(get("/", BROWSER))
        other = await s.ask(get("/", BROWSER))
        other.close()
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(page,))
        assert (await browser.response())[0] == 200


# --- HTTP/2


@on_uvloop
async def test_filters_over_http2() -> None:
    async with http2_scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            service(name="asleep"),
            routes=(
                filtered(cors=CORS),
                route("shop", path="/down", filters=Filters(maintenance=Maintenance(PAGE))),
                route("asleep", path="/zero", filters=Filters(waiting_page=WaitingPage(0.0))),
            ),
        )
        async with http2_client(s) as client:
            answer = await client.get(b"/", fields=[(b"origin", APP.encode())])
            assert (answer.status, answer.body) == (200, b"ok")
            assert answer.get(b"access-control-allow-origin") == APP.encode()
            answer = await client.get(b"/down/x")
            assert (answer.status, bytes(answer.body).decode()) == (503, PAGE)
            answer = await client.get(b"/zero", fields=[(b"accept", b"text/html")])
            assert (answer.status, answer.get(b"refresh")) == (503, b"2")
