"""What another node gets of a snapshot."""

import msgspec

from meshd.node_proxy.snapshot import NodeSnapshots
from proxy.wire.snapshot import (
    AcmeChallenge,
    CertificateFiles,
    Endpoint,
    Generation,
    Listener,
    Service,
    Snapshot,
)

WEB = Service("shop/web", "1", (Endpoint("a", "10.0.0.2", 33000), Endpoint("b", "", 0, path="/s")))
API = Service("shop/api", "1", (Endpoint("c", "10.0.0.2", 33001),))
FILES = CertificateFiles("/c.pem", "/k.pem", ("example.com",), "v1")


def snapshot(*listeners: Listener, **fields: object) -> Snapshot:
    made = Snapshot(Generation(3, 1), (API, WEB), listeners=listeners)
    return msgspec.structs.replace(made, **fields)


def test_what_is_about_one_host_is_left_out() -> None:
    kept = Listener("0.0.0.0:443", "published", service="shop/web")
    found = NodeSnapshots(str).convert(
        snapshot(
            Listener("172.18.0.1:80", "mesh"),
            Listener("172.18.0.1:15780", "virtual"),
            Listener("10.0.0.1:15781", "token"),
            kept,
            Listener("[::]:443", "published"),
            Listener("10.0.0.1:5432", "published"),
            Listener("127.0.0.1:0", "token"),
            Listener("unix:/run/x", "published"),
            Listener("nonsense", "published"),
            callers={"172.18.0.5": "shop/web"},
            virtual={"172.18.3.1:80": "shop/web"},
            credentials={"token": "shop/web"},
        )
    )
    assert found.generation == Generation(3, 1)
    assert found.listeners == (
        Listener("0.0.0.0:15781", "token"),
        kept,
        Listener("[::]:443", "published"),
    )
    assert (found.callers, found.virtual) == ({}, {})
    assert found.credentials == {"token": "shop/web"}
    assert [[e.id for e in each.endpoints] for each in found.services] == [["c"], ["a"]]
    assert found.services[0] is API
    assert found.services[1].fingerprint != WEB.fingerprint


def test_services_that_did_not_change_stay_the_same_objects() -> None:
    snapshots = NodeSnapshots(str)
    first = snapshots.convert(snapshot())
    changed = msgspec.structs.replace(API, fingerprint="2")
    second = snapshots.convert(snapshot(services=(changed, WEB)))
    assert second.services[0] is changed
    assert second.services[1] is first.services[1]


def test_certificates_are_sent_with_their_content_which_is_read_once_for_each_version() -> None:
    read: list[str] = []

    def content(path: str) -> str:
        read.append(path)
        if path == "/gone.pem":
            raise FileNotFoundError(path)
        return f"content of {path}"

    answer = CertificateFiles("/answer.pem", version="v1")
    challenges = (
        AcmeChallenge("tls-alpn-01", "example.com", certificate=answer),
        AcmeChallenge("http-01", "example.com", "token", "key"),
    )
    snapshots = NodeSnapshots(content)
    given = snapshot(certificates=(FILES, CertificateFiles("/gone.pem")), challenges=challenges)
    found = snapshots.convert(given)
    filled = msgspec.structs.replace(
        FILES, cert_pem="content of /c.pem", key_pem="content of /k.pem"
    )
    assert found.certificates == (filled,)
    tls, http = found.challenges
    assert tls.certificate is not None
    assert tls.certificate.cert_pem == "content of /answer.pem"
    assert http == challenges[1]
    assert read == ["/c.pem", "/k.pem", "/gone.pem", "/answer.pem"]
    snapshots.convert(given)
    assert read[4:] == ["/gone.pem"]
    assert snapshots.convert(snapshot(certificates=(filled,))).certificates == (filled,)
