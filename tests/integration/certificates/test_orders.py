"""Certificates are ordered from a real authority, pebble, which refuses nonces and fails on
request. The proxy is a small server here that answers challenges by HTTP."""

import asyncio
import random
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from meshd.certificates.manager import CertificateManager
from meshd.certificates.store import CertificateStore
from meshd.certificates.values import AuthorityAccess, WantedCertificate
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Kind
from tests.support.pebble import MAC_KEY, Pebble
from tests.support.ports import free_port
from tests.support.waiting import elapse, stays, wait_until

pytestmark = [pytest.mark.tool("pebble"), pytest.mark.tool("pebble-challtestsrv")]
DAY = 86400.0


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    authority = Pebble(tmp_path_factory.mktemp("pebble"))
    yield authority
    authority.close()


class Scene:
    """A manager, the names that it gets, its events, and a clock that can be set ahead."""

    def __init__(self, pebble: Pebble, state: Path, *names: str, **access: str) -> None:
        self.ahead = 0.0
        self.events: list[tuple[Kind, str]] = []
        self.access = AuthorityAccess(pebble.directory, ca=pebble.ca, **access)
        self.names = list(names)
        self.state = state
        self.challenges: list[str] = []
        self.answers = True
        self.manager = CertificateManager(
            CertificateStore(state), self.wanted, self.is_answered,
            lambda kind, text: self.events.append((kind, text)), lambda: None, self.now,
            random.Random(1),
        )  # fmt: skip

    def wanted(self) -> tuple[WantedCertificate, ...]:
        return tuple(WantedCertificate(n, self.access, ("http-01",)) for n in self.names)

    def now(self) -> float:
        return time.time() + self.ahead

    def is_answered(self, token: str) -> bool:
        return any(each.token == token for each in self.manager.served.challenges)

    async def answer(self, request: web.Request) -> web.Response:
        self.challenges.append(request.path)
        for each in self.manager.served.challenges:
            if self.answers and request.path.endswith("/" + each.token):
                return web.Response(text=each.key_authorization)
        return web.Response(status=404)

    def status(self, name: str) -> CertificateStatus:
        return next(each for each in self.manager.status() if name in each.names)

    def served(self) -> dict[str, x509.Certificate]:
        return {
            each.names[0]: x509.load_pem_x509_certificate(Path(each.cert).read_bytes())
            for each in self.manager.served.certificates
        }

    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.events]

    async def issued(self, *names: str) -> None:
        await wait_until(lambda: set(names) <= self.served().keys(), 20, lambda: self.events)
        await wait_until(lambda: not self.manager.served.challenges, 5, "the end of the orders")


@asynccontextmanager
async def running(scene: Scene, port: int) -> AsyncIterator[Scene]:
    app = web.Application()
    app.router.add_get("/{path:.*}", scene.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    task = asyncio.create_task(scene.manager.run())
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_a_certificate_is_issued_for_each_name(pebble: Pebble, tmp_path: Path) -> None:
    scene = Scene(pebble, tmp_path, "a.test", "b.test", email="ops@example.com")
    async with running(scene, pebble.http_port):
        await scene.issued("a.test", "b.test")
    assert scene.kinds() == [Kind.CERTIFICATE_ISSUED] * 2
    assert scene.status("a.test").state == "valid"
    left = scene.status("a.test").renew_at - time.time()
    assert 58 * DAY < left < 62 * DAY
    files = [path for path in (tmp_path / "certificates").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {path.name for path in files} >= {"account.json", "a.test.pem", "b.test.pem"}


async def test_another_process_continues_with_the_same_account_and_certificates(
    pebble: Pebble, tmp_path: Path
) -> None:
    async with running(Scene(pebble, tmp_path, "c.test"), pebble.http_port) as scene:
        await scene.issued("c.test")
        before = scene.served()["c.test"].serial_number
    again = Scene(pebble, tmp_path, "c.test", "d.test", email="new@example.com")
    assert again.served()["c.test"].serial_number == before  # before anything runs
    async with running(again, pebble.http_port):
        await again.issued("d.test")
    assert again.served()["c.test"].serial_number == before
    store = CertificateStore(tmp_path)
    account = store.account(again.access.id)
    assert account is not None
    assert account.email == "new@example.com"


async def test_a_certificate_is_renewed_after_two_thirds_of_its_life(
    pebble: Pebble, tmp_path: Path
) -> None:
    async with running(Scene(pebble, tmp_path, "e.test"), pebble.http_port) as scene:
        await scene.issued("e.test")
        before = scene.served()["e.test"].serial_number
        scene.ahead = 58 * DAY
        await stays(lambda: len(scene.events) == 1, 2.0, lambda: scene.events)
        scene.ahead = 62 * DAY
        await wait_until(lambda: scene.served()["e.test"].serial_number != before, 20)
        await wait_until(lambda: len(scene.events) == 2, 5)
    assert scene.kinds() == [Kind.CERTIFICATE_ISSUED, Kind.CERTIFICATE_RENEWED]


async def test_while_the_authority_is_away_the_old_certificate_is_served(tmp_path: Path) -> None:
    pebble = Pebble(tmp_path / "pebble")
    try:
        async with running(Scene(pebble, tmp_path, "f.test"), pebble.http_port) as scene:
            await scene.issued("f.test")
            before = scene.served()["f.test"].serial_number
            pebble.stop()
            scene.ahead = 80 * DAY
            await wait_until(lambda: len(scene.events) >= 3, 10, lambda: scene.events)
            assert scene.kinds()[1:3] == [Kind.CERTIFICATE_EXPIRING, Kind.CERTIFICATE_FAILED]
            assert "cannot be reached: Connection refused" in scene.events[2][1]
            assert "the old one is valid for 10.0 more days" in scene.events[2][1]
            assert scene.served()["f.test"].serial_number == before
            status = scene.status("f.test")
            assert status.state == "failing"
            assert 0 < status.retry_at - scene.now() <= 36
            pebble.start()  # has forgotten the account
            scene.ahead += 40
            await wait_until(lambda: "accountDoesNotExist" in scene.events[-1][1], 10)
            scene.ahead += 10
            await wait_until(lambda: scene.served()["f.test"].serial_number != before, 20,
                             lambda: scene.events)  # fmt: skip
    finally:
        pebble.close()


async def test_a_name_that_cannot_be_validated_shows_the_reason_and_delays_no_other(
    pebble: Pebble, tmp_path: Path
) -> None:
    scene = Scene(pebble, tmp_path, "bad.test", "blocked.test", "good.test")
    pebble.resolve("bad.test", "127.0.0.99")
    async with running(scene, pebble.http_port):
        await scene.issued("good.test")
        await wait_until(lambda: scene.kinds().count(Kind.CERTIFICATE_FAILED) == 2, 10,
                         lambda: scene.events)  # fmt: skip
        bad, blocked = scene.status("bad.test"), scene.status("blocked.test")
        assert bad.state == "failing"
        assert "validation by http-01 failed" in bad.error
        assert "127.0.0.99" in bad.error
        assert 299 < bad.retry_at - scene.now() < 361
        assert "rejectedIdentifier" in blocked.error
        pebble.resolve("bad.test", "127.0.0.1")
        assert not scene.manager.retry("other.test")
        assert scene.manager.retry("bad.test")
        await scene.issued("bad.test")
    assert scene.status("bad.test").error == ""


async def test_a_process_that_ends_at_any_moment_leaves_nothing_half_done(
    pebble: Pebble, tmp_path: Path
) -> None:
    """Each time another process continues: with the same account, and in the end with a
    certificate."""
    urls = set()
    for number in range(8):
        scene = Scene(pebble, tmp_path, "j.test", "k.test")
        async with running(scene, pebble.http_port):
            await elapse(0.06 * number, "the next process ends a little later")
        account = CertificateStore(tmp_path).account(scene.access.id)
        urls |= {account.url} if account else set()
        assert not scene.manager.served.challenges
    async with running(Scene(pebble, tmp_path, "j.test", "k.test"), pebble.http_port) as scene:
        await scene.issued("j.test", "k.test")
        account = CertificateStore(tmp_path).account(scene.access.id)
    assert account is not None
    assert (urls - {""}) | {account.url} == {account.url}
    assert not list((tmp_path / "certificates").rglob(".new-*"))


async def test_a_state_that_cannot_be_written_is_not_ordered_for_again_and_again(
    pebble: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(pebble, tmp_path, "l.test")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(CertificateStore, "keep_certificate", fail)
    async with running(scene, pebble.http_port):
        await wait_until(lambda: scene.events, 20)
        await stays(lambda: len(scene.events) == 1, 2.5, lambda: scene.events)
    assert "the state cannot be written: no space left; next attempt in 1" in scene.events[0][1]
    assert not scene.manager.served.challenges


async def test_an_external_account_is_bound(tmp_path: Path) -> None:
    pebble = Pebble(tmp_path / "pebble", external=True)
    try:
        async with running(Scene(pebble, tmp_path, "g.test"), pebble.http_port) as scene:
            await wait_until(lambda: scene.events, 10)
            assert "set external_account" in scene.status("g.test").error
        access = {"kid": "kid-1", "mac_key": MAC_KEY}
        async with running(Scene(pebble, tmp_path, "g.test", **access), pebble.http_port) as scene:
            await scene.issued("g.test")
    finally:
        pebble.close()


async def test_nothing_is_ordered_while_the_proxy_does_not_answer_the_challenge(
    pebble: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.certificates.manager.DELIVERY_SECONDS", 0.3)
    scene = Scene(pebble, tmp_path, "h.test")
    monkeypatch.setattr(scene, "is_answered", lambda token: False)
    monkeypatch.setattr(scene.manager, "_is_answered", lambda token: False)
    async with running(scene, pebble.http_port):
        await wait_until(lambda: scene.events, 10)
    assert "the proxy did not take the challenge" in scene.status("h.test").error
    assert scene.challenges == []


async def test_an_address_where_nothing_listens_fails_at_once(tmp_path: Path) -> None:
    class Nothing:
        directory = f"https://127.0.0.1:{free_port()}/dir"
        ca = str(tmp_path / "missing.pem")

    scene = Scene(Nothing, tmp_path, "i.test")  # type: ignore[arg-type]
    async with running(scene, free_port()):
        await wait_until(lambda: scene.events, 10)
    assert "missing.pem" in scene.status("i.test").error
