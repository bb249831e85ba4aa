"""What an authority is asked for and how its answers are read: with a stub, for what pebble does
not offer: renewal information, orders that replace a certificate, limits and broken answers."""

import asyncio
import base64
import datetime
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from meshd.certificates.authority import Authority
from meshd.certificates.keys import new_key
from meshd.certificates.manager import CertificateManager
from meshd.certificates.store import CertificateStore
from meshd.certificates.values import (
    Account,
    AuthorityAccess,
    FailureCause,
    HeldCertificate,
    OrderFailed,
    WantedCertificate,
)
from meshd.model.event import Kind
from tests.support.waiting import wait_until

HELD = HeldCertificate(("a.test",), 0.0, 1e9, "/a.pem", "v", 1, "aki.serial")
START = "2030-01-01T00:00:00Z"
END = "2030-01-03T00:00:00Z"


def problem(status: int, code: str, detail: str, **headers: str) -> web.Response:
    body = {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}
    return web.json_response(body, status=status, headers={"Replay-Nonce": "bm9uY2U", **headers})


class Stub:
    """An authority whose answers a test sets: `order` and `info` are called for each request."""

    def __init__(self) -> None:
        self.url = ""
        self.with_info = True
        self.refused_nonces = 0
        self.orders: list[dict[str, Any]] = []
        self.order: Callable[[], web.Response] = self.good_order
        self.info: Callable[[], web.Response] = self.good_info

    def good_order(self) -> web.Response:
        body = {"status": "ready", "authorizations": [], "finalize": f"{self.url}/finalize"}
        headers = {"Replay-Nonce": "bm9uY2U", "Location": f"{self.url}/order/1"}
        return web.json_response(body, status=201, headers=headers)

    def good_info(self) -> web.Response:
        window = {"start": START, "end": END}
        body = {"suggestedWindow": window, "explanationURL": "https://ca.example/why"}
        return web.json_response(body, headers={"Retry-After": "7200"})

    async def directory(self, _: web.Request) -> web.Response:
        names = ["newNonce", "newAccount", "newOrder"] + ["renewalInfo"] * self.with_info
        return web.json_response({name: f"{self.url}/{name}" for name in names})

    async def nonce(self, _: web.Request) -> web.Response:
        return web.Response(headers={"Replay-Nonce": "bm9uY2U"})

    async def account(self, _: web.Request) -> web.Response:
        headers = {"Replay-Nonce": "bm9uY2U", "Location": f"{self.url}/account/1"}
        return web.json_response({"status": "valid"}, status=201, headers=headers)

    async def new_order(self, request: web.Request) -> web.Response:
        if self.refused_nonces:
            self.refused_nonces -= 1
            return problem(400, "badNonce", "stale")
        payload = json.loads(await request.read())["payload"]
        self.orders.append(json.loads(base64.urlsafe_b64decode(payload + "==")))
        return self.order()

    async def renewal(self, request: web.Request) -> web.Response:
        assert request.match_info["id"].count(".") == 1
        return self.info()


@asynccontextmanager
async def stub() -> AsyncIterator[Stub]:
    served = Stub()
    app = web.Application()
    app.router.add_get("/dir", served.directory)
    app.router.add_route("HEAD", "/newNonce", served.nonce)
    app.router.add_post("/newAccount", served.account)
    app.router.add_post("/newOrder", served.new_order)
    app.router.add_get("/renewalInfo/{id}", served.renewal)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()


def authority(served: Stub) -> Authority:
    access = AuthorityAccess(f"{served.url}/dir")
    return Authority(access, Account(new_key()), threading.Event())


async def order(served: Stub, replaces: str = "") -> str:
    found = authority(served)
    await asyncio.to_thread(found.sign_in)
    return (await asyncio.to_thread(found.start_order, "a.test", replaces)).url


async def test_the_window_of_a_renewal_is_read() -> None:
    async with stub() as served:
        window = await asyncio.to_thread(authority(served).read_window, HELD)
    assert (window.renewal_id, window.end - window.start) == ("aki.serial", 2 * 86400.0)
    assert window.explanation == "https://ca.example/why"
    assert 7190 < window.check_at - time.time() <= 7200


async def test_without_renewal_information_there_is_no_window() -> None:
    async with stub() as served:
        served.with_info = False
        window = await asyncio.to_thread(authority(served).read_window, HELD)
    assert (window.start, window.end) == (0.0, 0.0)
    assert window.check_at > time.time() + 3600


async def test_an_order_names_the_certificate_that_it_replaces() -> None:
    async with stub() as served:
        assert await order(served, "aki.serial") == f"{served.url}/order/1"
        served.with_info = False
        await order(served, "aki.serial")
    identifiers = [{"type": "dns", "value": "a.test"}]
    assert served.orders == [
        {"identifiers": identifiers, "replaces": "aki.serial"},
        {"identifiers": identifiers},
    ]


async def test_an_order_that_may_not_replace_is_sent_without_that() -> None:
    async with stub() as served:

        def answer() -> web.Response:
            if "replaces" in served.orders[-1]:
                return problem(409, "alreadyReplaced", "another order replaces it")
            return served.good_order()

        served.order = answer
        await order(served, "aki.serial")
    assert ["replaces" in each for each in served.orders] == [True, False]


async def test_refused_nonces_are_retried() -> None:
    async with stub() as served:
        served.refused_nonces = 7
        await order(served)
    assert len(served.orders) == 1


@pytest.mark.parametrize(
    ("answer", "cause", "text", "wait"),
    [
        (
            lambda: problem(429, "rateLimited", "too many", **{"Retry-After": "900"}),
            FailureCause.RATE_LIMITED,
            "too many (rateLimited)",
            900,
        ),
        (
            lambda: problem(403, "rejectedIdentifier", "not allowed"),
            FailureCause.REFUSED,
            "not allowed (rejectedIdentifier)",
            0,
        ),
        (
            lambda: problem(400, "accountDoesNotExist", "unknown account"),
            FailureCause.ACCOUNT_LOST,
            "unknown account",
            0,
        ),
        (
            lambda: web.Response(
                status=503, text="<html>busy</html>", headers={"Retry-After": "120"}
            ),
            FailureCause.UNREACHABLE,
            "it answered 503 Service Unavailable",
            120,
        ),
        (
            lambda: web.Response(text="hello", headers={"Replay-Nonce": "bm9uY2U"}),
            FailureCause.UNREACHABLE,
            "not a message of ACME",
            0,
        ),
    ],
    ids=["rate limit", "refused", "account", "busy", "nonsense"],
)
async def test_failures_have_a_cause_a_text_and_a_wait(
    answer: Callable[[], web.Response], cause: FailureCause, text: str, wait: float
) -> None:
    async with stub() as served:
        served.order = answer
        with pytest.raises(OrderFailed) as failed:
            await order(served)
    assert failed.value.cause is cause
    assert text in str(failed.value)
    assert failed.value.retry_after == pytest.approx(wait, abs=2)


def long_lived(days: float) -> tuple[str, str]:
    """A key, and a certificate that names the key of its authority, as an authority makes it."""
    key = new_key()
    private = load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    return key, certificate.public_bytes(Encoding.PEM).decode()


async def test_a_certificate_is_replaced_when_its_authority_suggests_it(tmp_path: Path) -> None:
    """The order then names the certificate; the stub fails it, so the old one stays."""
    async with stub() as served:
        access = AuthorityAccess(f"{served.url}/dir")
        store = CertificateStore(tmp_path)
        store.acquire()
        held = store.keep_certificate(access.id, "a.test", *long_lived(3650))
        store.close()
        window: dict[str, str] = {}
        served.info = lambda: web.json_response({"suggestedWindow": window})
        events: list[tuple[Kind, str]] = []
        ahead = 0.0
        manager = CertificateManager(
            CertificateStore(tmp_path),
            lambda: (WantedCertificate("a.test", access, ("http-01",)),),
            lambda token: True,
            lambda kind, text: events.append((kind, text)),
            lambda: None,
            lambda: time.time() + ahead,
            random.Random(1),
        )
        window.update(start="2090-01-01T00:00:00Z", end="2090-01-02T00:00:00Z")
        task = asyncio.create_task(manager.run())
        try:
            await wait_until(lambda: manager.status()[0].renew_at > 3e9, 5)
            assert served.orders == []
            window.update(start="2020-01-01T00:00:00Z", end="2020-01-02T00:00:00Z")
            ahead = 6.1 * 3600
            await wait_until(lambda: events, 5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert [each.get("replaces") for each in served.orders] == [held.renewal_id]
    assert events[0][0] is Kind.CERTIFICATE_FAILED
    assert [each.cert for each in manager.served.certificates] == [held.path]


async def test_an_attempt_ends_when_it_is_cancelled() -> None:
    async with stub() as served:
        cancelled = threading.Event()
        cancelled.set()
        access = AuthorityAccess(f"{served.url}/dir")
        with pytest.raises(OrderFailed, match="cancelled"):
            Authority(access, Account(new_key()), cancelled).sign_in()
