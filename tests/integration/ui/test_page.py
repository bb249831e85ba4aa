"""The address of the page: who is signed in, what it may do, and which requests are refused."""

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from meshd.api.route_table import ROUTES
from meshd.api.tcp_address import ServeError, TcpSettings
from meshd.model.access import Identity, NewSignInLink, Role
from meshd.model.errors import Rejected
from meshd.ui.assets import Asset
from meshd.ui.guard import KEY_HEADER
from meshd.ui.page import WebPage
from meshd.ui.settings import PageSettings
from meshd.ui.sign_in import SESSION_NAME
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.certificate_authority import Authority
from tests.support.ports import free_port

FILES = {
    "index.html": Asset("text/html; charset=utf-8", b"<!doctype html><p>page", gzip.compress(b"z")),
    "assets/main-A.js": Asset("text/javascript; charset=utf-8", b"1;", gzip.compress(b"1;")),
}
LOCAL = PageSettings(TcpSettings("127.0.0.1:0", option="--ui"))
ADMIN = Identity("root", Role.ADMIN)


class Browser:
    """A page in a browser: keeps the cookie, and the key of its session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.key = ""

    async def sign_in(self, **body: str) -> int:
        async with self.session.post("/session", json=body) as answer:
            if answer.status == 200:
                self.key = (await answer.json())["key"]
            return answer.status

    async def send(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        sent = {KEY_HEADER: self.key, **(headers or {})}
        async with self.session.request(method, path, headers=sent) as answer:
            return answer.status, await answer.text()


@pytest.fixture
def control() -> FakeControl:
    fake = FakeControl()
    fake.services = traffic.status().services
    return fake


@pytest.fixture
def page(control: FakeControl) -> WebPage:
    return WebPage(LOCAL, FILES, control.access, lambda: 1000.0)


@asynccontextmanager
async def open_browser(address: str) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://{address}", cookie_jar=jar) as session:
        yield Browser(session)


@pytest.fixture
async def address(page: WebPage, control: FakeControl) -> AsyncIterator[str]:
    async with page.serve(control) as bound:
        yield bound


@pytest.fixture
async def browser(address: str) -> AsyncIterator[Browser]:
    async with open_browser(address) as opened:
        yield opened


def code_of(page: WebPage, role: Role = Role.OPERATE, caller: Identity = ADMIN) -> str:
    return page.create_link(caller, NewSignInLink(role)).url.partition("#code=")[2]


def path_of(path: str) -> str:
    return re.sub(r"{\w+}", "x", path)


async def test_a_link_signs_in_once(
    page: WebPage, control: FakeControl, browser: Browser, address: str
) -> None:
    link = page.create_link(ADMIN, NewSignInLink())
    assert link.url.startswith(f"http://{address}/#code=")
    code = link.url.partition("#code=")[2]
    assert await browser.sign_in(code=code) == 200
    status, text = await browser.send("GET", "/v1/caller")
    assert (status, '"role":"operate"' in text) == (200, True)
    assert (await browser.send("GET", "/v1/status"))[0] == 200
    (token,) = control.access.tokens()
    assert (token.name, token.role, token.who) == (SESSION_NAME, "operate", "root")
    async with open_browser(address) as other:
        assert await other.sign_in(code=code) == 401
        assert (await other.send("GET", "/v1/status"))[0] == 401


async def test_a_session_needs_the_cookie_and_the_key(
    page: WebPage, browser: Browser, address: str
) -> None:
    await browser.sign_in(code=code_of(page))
    key, browser.key = browser.key, ""
    assert (await browser.send("GET", "/v1/status"))[0] == 401, "only the cookie"
    async with open_browser(address) as other:
        other.key = key
        assert (await other.send("GET", "/v1/status"))[0] == 401, "only the key"
    browser.key = key
    assert (await browser.send("GET", "/v1/status"))[0] == 200
    (cookie,) = browser.session.cookie_jar
    assert cookie.key == f"meshd_session_{address.rpartition(':')[2]}"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")


async def test_without_a_session_only_the_files_are_readable(browser: Browser) -> None:
    seen = {}
    for route in ROUTES:
        seen[route] = await browser.send(route.method, path_of(route.path))
    assert {status for status, _ in seen.values()} == {401}
    assert not any("orders" in text for _, text in seen.values())
    assert (await browser.send("GET", "/"))[1] == "z"
    assert (await browser.send("GET", "/assets/main-A.js"))[0] == 200
    for path in ("/assets/other.js", "/assets/", "/nothing"):
        assert (await browser.send("GET", path))[0] in (401, 404), path
    # A GET only: a page of another site cannot sign a browser in by a link.
    assert (await browser.send("GET", "/session"))[0] == 405


async def test_the_headers_forbid_everything_from_elsewhere(browser: Browser) -> None:
    for path in ("/", "/assets/main-A.js", "/v1/status", "/session"):
        async with browser.session.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
            assert directives["default-src"] == "'none'"
            assert directives["script-src"] == directives["style-src"] == "'self'"
            assert directives["frame-ancestors"] == "'none'"
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
    async with browser.session.get("/") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    async with browser.session.get("/assets/main-A.js") as answer:
        assert "immutable" in answer.headers["Cache-Control"]
    compressed = {"Accept-Encoding": "gzip"}
    async with browser.session.get("/", headers=compressed, auto_decompress=False) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await answer.read()) == b"z"


@pytest.mark.parametrize("role", [Role.VIEW, Role.OPERATE])
async def test_the_roles_of_the_api_apply(
    page: WebPage, control: FakeControl, browser: Browser, role: Role
) -> None:
    await browser.sign_in(code=code_of(page, role))
    for route in ROUTES:
        status, _ = await browser.send(route.method, path_of(route.path))
        assert (status == 403) == (not role.includes(route.role)), route
    if role is Role.VIEW:
        changing = {"scale", "drain", "restart", "undo", "pause", "resume", "sign-in link"}
        assert not changing & {str(call[0]) for call in control.calls}
        assert {each.status for each in control.access.entries} == {403}
        assert all(SESSION_NAME in each.who for each in control.access.entries)


async def test_a_link_has_at_most_the_role_and_the_project_of_its_creator(
    page: WebPage, browser: Browser
) -> None:
    ann = Identity("ann", Role.OPERATE, "bank")
    with pytest.raises(Rejected, match="has the role operate"):
        page.create_link(ann, NewSignInLink(Role.ADMIN))
    await browser.sign_in(code=code_of(page, Role.VIEW, ann))
    _, text = await browser.send("GET", "/v1/live")
    assert '"services":[]' in text
    assert (await browser.send("GET", "/v1/projects/shop/services/orders/history"))[0] == 403


async def test_pages_of_other_sites_can_neither_read_nor_change_anything(
    page: WebPage, control: FakeControl, browser: Browser, address: str
) -> None:
    await browser.sign_in(code=code_of(page))
    restart = "/v1/projects/shop/services/orders/restart"
    port = address.rpartition(":")[2]
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": f"http://127.0.0.1:{free_port()}"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert (await browser.send("POST", restart, headers))[0] == 403, headers
        assert (await browser.send("GET", "/v1/status", headers))[0] == 403, headers
    for host in ("evil.example", f"evil.example:{port}", f"mesh.test:{port}"):
        assert (await browser.send("GET", "/", {"Host": host}))[0] == 421, host
    assert control.calls == []
    own = {"Origin": f"http://{address}", "Sec-Fetch-Site": "same-origin"}
    assert (await browser.send("POST", restart, own))[0] == 202
    async with open_browser(address) as other:
        code = code_of(page)
        async with other.session.post(
            "/session", json={"code": code}, headers={"Origin": "http://evil.example"}
        ) as answer:
            assert answer.status == 403
        assert await other.sign_in(code=code) == 200, "the code was not used"


async def test_signing_out_ends_the_session(
    page: WebPage, control: FakeControl, browser: Browser
) -> None:
    await browser.sign_in(code=code_of(page))
    assert (await browser.send("DELETE", "/session"))[0] == 204
    assert control.access.tokens() == []
    assert (await browser.send("GET", "/v1/status"))[0] == 401
    assert (await browser.send("DELETE", "/session"))[0] == 204


async def test_a_token_signs_in_and_is_not_revoked(control: FakeControl, browser: Browser) -> None:
    secret = control.access.add(Role.VIEW)
    assert await browser.sign_in(token=f" {secret}\n") == 200
    assert (await browser.send("GET", "/v1/status"))[0] == 200
    assert (await browser.send("DELETE", "/session"))[0] == 204
    assert len(control.access.tokens()) == 1
    assert await browser.sign_in(token="meshd_x_y") == 401
    assert await browser.sign_in(other="x") == 400


async def test_codes_cannot_be_guessed_fast(browser: Browser) -> None:
    seen = [await browser.sign_in(code=f"guess-{number}") for number in range(15)]
    assert seen[0] == 401
    assert seen[-1] == 429


async def test_the_live_stream_is_sent_as_server_sent_events(
    page: WebPage, browser: Browser
) -> None:
    await browser.sign_in(code=code_of(page))
    headers = {KEY_HEADER: browser.key, "Accept": "text/event-stream"}
    async with browser.session.get("/v1/live", headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert "Content-Security-Policy" in answer.headers
        assert (await answer.content.readline()).startswith(b'data: {"at":1.0,"full":true')


async def test_a_page_that_is_off_or_not_built_is_not_served(control: FakeControl) -> None:
    for page, text in (
        (WebPage(None, FILES, control.access, lambda: 0.0), "--no-ui"),
        (WebPage(LOCAL, {}, control.access, lambda: 0.0), "make page"),
    ):
        async with page.serve(control) as address:
            assert address == ""
            with pytest.raises(Rejected, match=text):
                page.create_link(ADMIN, NewSignInLink())


async def test_an_address_in_use_is_an_error_only_if_it_was_asked_for(
    control: FakeControl, address: str
) -> None:
    strict = PageSettings(TcpSettings(address, option="--ui"), strict=True)
    with pytest.raises(ServeError, match="cannot listen at"):
        async with WebPage(strict, FILES, control.access, lambda: 0.0).serve(control):
            raise AssertionError("it served")
    other = PageSettings(TcpSettings(address, option="--ui"))
    async with WebPage(other, FILES, control.access, lambda: 0.0).serve(control) as bound:
        assert bound != address
        assert bound.startswith("127.0.0.1:")


async def test_with_tls_the_cookie_is_sent_over_tls_only(
    control: FakeControl, tmp_path: Path
) -> None:
    issued = Authority(tmp_path).issue("mesh", "127.0.0.1", "mesh.test")
    tcp = TcpSettings("127.0.0.1:0", issued.cert, issued.key, names=("mesh.test",), option="--ui")
    page = WebPage(PageSettings(tcp), FILES, control.access, lambda: 0.0)
    async with page.serve(control) as bound:
        link = page.create_link(ADMIN, NewSignInLink())
        assert URL(link.url).authority == f"mesh.test:{bound.rpartition(':')[2]}"
        jar = aiohttp.CookieJar(unsafe=True)
        connector = aiohttp.TCPConnector(ssl=False)
        async with (
            aiohttp.ClientSession(cookie_jar=jar, connector=connector) as session,
            session.post(
                f"https://{bound}/session", json={"code": link.url.partition("#code=")[2]}
            ) as answer,
        ):
            assert answer.status == 200
            assert "Secure" in answer.headers["Set-Cookie"]
