"""Certificates by server name, settings, and session tickets."""

import contextlib
import ssl
import time
from pathlib import Path

import pytest

from proxy.tls import openssl
from proxy.tls.certificate import load_listener
from proxy.tls.contexts import ServerContexts
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from tests.support.certificate_authority import Authority, Issued

SECRETS = (b"s" * 64,)


def files(issued: Issued, *names: str) -> CertificateFiles:
    return CertificateFiles(issued.cert, issued.key, names)


def contexts(
    *certificates: CertificateFiles, address: str = "x:1", **more: object
) -> ServerContexts:
    tls = ListenerTls(certificates, **more)  # type: ignore[arg-type]
    listener = Listener(address, tls=load_listener(tls, time.time()))
    return ServerContexts(listener, ("http/1.1",))


class Handshaken:
    """Both sides of a handshake in memory. With `worker`, the ticket chooses the context."""

    def __init__(
        self,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        name: str | None = "shop.test",
        session: ssl.SSLSession | None = None,
        worker: ServerContexts | None = None,
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
        if worker is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            hello = to_server.read()
            server = worker.find_renewing(hello) or server
            to_server.write(hello)
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for side in (self.client, self.server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        # Tickets of TLS 1.3 come with the first data.
        self.server.write(b"x")
        assert self.client.read(1) == b"x"

    @property
    def served(self) -> tuple[str, ...]:
        found = self.client.getpeercert() or {}
        return tuple(value for _, value in found["subjectAltName"])  # type: ignore[misc, union-attr]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def unchecked(authority: Authority) -> ssl.SSLContext:
    client = authority.client_context()
    client.check_hostname = False
    return client


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("shop.test", "shop.test"),
        ("SHOP.test", "shop.test"),
        ("api.wild.test", "api.wild.test"),
        ("b.wild.test", "*.wild.test"),
        ("a.b.wild.test", "shop.test"),
        ("wild.test", "shop.test"),
        ("unknown.test", "shop.test"),
        (None, "shop.test"),
    ],
)
def test_the_server_name_chooses(authority: Authority, name: str | None, served: str) -> None:
    names = ("shop.test", "*.wild.test", "api.wild.test")
    made = contexts(*(files(authority.issue(str(n), each)) for n, each in enumerate(names)))
    assert Handshaken(made.default, unchecked(authority), name).served == (served,)


def test_shared_certificates_come_after_the_own_ones(authority: Authority) -> None:
    made = contexts(files(authority.issue("own", "shop.test")))
    client = unchecked(authority)
    shared = [files(authority.issue(each, f"{each}.test"), f"{each}.test") for each in "ab"]
    shadow = files(authority.issue("shadow", "shadow.test"), "shop.test")
    assert made.share([*shared, shadow]) == []
    assert Handshaken(made.default, client, "a.test").served == ("a.test",)
    assert Handshaken(made.default, client).served == ("shop.test",)
    broken = CertificateFiles("/no/such.pem", "/no/such.key", ("c.test",))
    (problem,) = made.share([shared[0], broken])
    assert "/no/such.pem cannot be read" in problem
    assert Handshaken(made.default, client, "a.test").served == ("a.test",)
    assert Handshaken(made.default, client, "b.test").served == ("shop.test",)


def test_a_shared_certificate_that_gets_unreadable_is_served_on(authority: Authority) -> None:
    made = contexts(files(authority.issue("own", "shop.test")))
    issued = authority.issue("a", "a.test")
    first = CertificateFiles(issued.cert, issued.key, ("a.test",), version="1")
    made.share([first])
    Path(issued.key).write_text("nothing")
    (problem,) = made.share([CertificateFiles(issued.cert, issued.key, ("a.test",), version="2")])
    assert issued.cert in problem
    assert Handshaken(made.default, unchecked(authority), "a.test").served == ("a.test",)


def test_shared_certificates_alone(authority: Authority) -> None:
    made = ServerContexts(Listener("x:1", tls=ListenerTls()), ())
    with pytest.raises(ssl.SSLError):
        Handshaken(made.default, unchecked(authority))
    made.share([files(authority.issue("a", "a.test"), "a.test")])
    assert Handshaken(made.default, unchecked(authority), "x.test").served == ("a.test",)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["shop.test", "two.test"])
def test_a_session_is_resumed_at_another_worker(
    authority: Authority, version: ssl.TLSVersion, name: str
) -> None:
    certificates = [files(authority.issue(each, f"{each}.test")) for each in ("shop", "two")]
    client = authority.client_context()
    client.maximum_version = version
    workers = [contexts(*certificates) for _ in range(2)]
    session = Handshaken(workers[0].default, client, name).client.session
    assert not Handshaken(workers[1].default, client, name, session).server.session_reused
    for worker in workers:
        assert worker.use_ticket_secrets(SECRETS)
    session = Handshaken(workers[0].default, client, name).client.session
    resumed = Handshaken(workers[1].default, client, name, session)
    assert resumed.server.session_reused
    assert resumed.served == (name,)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_the_secret_before_is_accepted_and_renewed(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """On all workers, also on one that started after the rotation; two rotations end it."""
    first, second, third = b"1" * 64, b"2" * 64, b"3" * 64
    issued = files(authority.issue("shop", "shop.test"))
    client = authority.client_context()
    client.maximum_version = version
    old, new = contexts(issued), contexts(issued)
    assert old.use_ticket_secrets((first,))
    session = Handshaken(old.default, client).client.session
    for worker in (old, new):
        assert worker.use_ticket_secrets((second, first))
    renewed = []
    for worker in (old, new):
        resumed = Handshaken(worker.default, client, session=session, worker=worker)
        assert resumed.server.session_reused
        renewed.append(resumed.client.session)
    for worker in (old, new):
        assert worker.use_ticket_secrets((third, second))
        for each, accepted in ((session, False), (renewed[0], True), (renewed[1], True)):
            shaken = Handshaken(worker.default, client, session=each, worker=worker)
            assert shaken.server.session_reused == accepted
    stranger = contexts(issued)
    assert stranger.use_ticket_secrets((b"4" * 64, b"5" * 64))
    shaken = Handshaken(stranger.default, client, session=renewed[0], worker=stranger)
    assert not shaken.server.session_reused


def test_only_tickets_of_the_secret_before_need_another_context(authority: Authority) -> None:
    """A callback of Python in each handshake would make all of them dearer."""
    first, second = b"1" * 64, b"2" * 64
    gone = authority.issue("shop", "shop.test")
    made = ServerContexts(Listener("x:1", tls=ListenerTls((files(gone),))), ())
    assert made.use_ticket_secrets((first,))
    assert made.find_renewing(b"any") is None
    client = authority.client_context()
    session = Handshaken(made.default, client).client.session
    assert made.use_ticket_secrets((second, first))
    assert made.find_renewing(b"any") is None
    current = Handshaken(made.default, client).client.session
    resumed = Handshaken(made.default, client, session=current, worker=made)
    assert resumed.server.session_reused
    assert resumed.server.context is made.default
    renewing = Handshaken(made.default, client, session=session, worker=made).server
    assert renewing.session_reused
    assert renewing.context is not made.default
    # Its files are read again for that context; without them there is a new session.
    Path(gone.cert).unlink()
    assert made.use_ticket_secrets((second, first))
    shaken = Handshaken(made.default, client, session=session, worker=made)
    assert not shaken.server.session_reused


def test_sessions_of_other_rules_are_not_resumed(authority: Authority) -> None:
    """A session without a client certificate must not open a listener that requires one."""
    issued = files(authority.issue("shop", "shop.test"))
    open_one = contexts(issued, client="optional", client_ca=authority.ca)
    closed = contexts(issued, client="required", client_ca=authority.ca)
    elsewhere = contexts(issued, client="optional", client_ca=authority.ca, address="x:2")
    for each in (open_one, closed, elsewhere):
        each.use_ticket_secrets(SECRETS)
    client = authority.client_context()
    session = Handshaken(open_one.default, client).client.session
    assert Handshaken(open_one.default, client, session=session).server.session_reused
    assert not Handshaken(elsewhere.default, client, session=session).server.session_reused
    with pytest.raises(ssl.SSLError):
        Handshaken(closed.default, client, session=session)


def test_old_versions_and_ciphers_are_refused(authority: Authority) -> None:
    made = contexts(files(authority.issue("shop", "shop.test")))
    client = authority.client_context()
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        Handshaken(made.default, client)
    client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
    name, _, _ = Handshaken(made.default, client).client.cipher() or ("", "", 0)
    assert name == "ECDHE-ECDSA-CHACHA20-POLY1305"
    client = authority.client_context()
    assert (Handshaken(made.default, client).client.cipher() or ("",))[
        0
    ] == "TLS_AES_128_GCM_SHA256"
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    newest = contexts(files(authority.issue("new", "shop.test")), minimum="1.3")
    with pytest.raises(ssl.SSLError):
        Handshaken(newest.default, client)


def test_challenges(authority: Authority) -> None:
    made = contexts(files(authority.issue("shop", "shop.test")))
    assert not made.has_challenges
    answer = files(authority.issue("challenge", "new.test"))
    assert made.challenge({"new.test": answer}) == []
    assert made.has_challenges
    assert made.find_challenge("new.test", (b"http/1.1", b"acme-tls/1")) is None
    assert made.find_challenge("shop.test", (b"acme-tls/1",)) is None
    found = made.find_challenge("new.test", (b"acme-tls/1",))
    assert found is not None
    client = authority.client_context()
    client.set_alpn_protocols(["acme-tls/1"])
    shaken = Handshaken(found, client, "new.test")
    assert shaken.client.selected_alpn_protocol() == "acme-tls/1"
    (problem,) = made.challenge({"bad.test": CertificateFiles("/no/such.pem")})
    assert "challenge for bad.test" in problem
    assert not made.has_challenges


def test_the_binding_is_checked_before_it_is_used() -> None:
    assert openssl.is_available()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert openssl.set_groups(context)
    assert openssl.set_ticket_keys(context, b"k" * openssl.TICKET_KEY_BYTES)


def test_without_the_binding_each_worker_has_its_own_keys(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssl, "_library", lambda: None)
    made = contexts(files(authority.issue("shop", "shop.test")))
    assert not made.use_ticket_secrets(SECRETS)
    client = authority.client_context()
    session = Handshaken(made.default, client).client.session
    assert Handshaken(made.default, client, session=session).server.session_reused
