"""The mesh's own authority: what its certificates say, and what it refuses to sign."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from meshd.model.errors import BadAuthority
from meshd.node_proxy.authority import (
    NODE_LIFE,
    BadRequest,
    MeshAuthority,
    client_context,
    make_authority,
    new_request,
    read_authority_file,
    read_validity,
)
from meshd.node_proxy.identity import PeerIdentity, PeerRole

NOW = 1_800_000_000.0
NODE = PeerIdentity(PeerRole.NODE, "w1")
ONE, OTHER = make_authority(NOW), make_authority(NOW)


@pytest.fixture(scope="module")
def authority() -> MeshAuthority:
    return MeshAuthority(*make_authority(NOW))


def test_a_node_gets_a_short_certificate_with_its_names_alone(authority: MeshAuthority) -> None:
    _, request = new_request()
    issued = authority.issue(NODE, request, NOW)
    assert read_validity(issued) == (NOW, NOW + NODE_LIFE)
    found = x509.load_pem_x509_certificate(issued.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "w1.node.meshd.internal",
        "w1.peer.meshd.internal",
    ]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [
        x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,
        x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,
    ]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    mine = x509.load_pem_x509_certificate(authority.certificate.encode())
    found.verify_directly_issued_by(mine)


def test_names_in_a_request_count_for_nothing(authority: MeshAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.SubjectAlternativeName([x509.DNSName("control.meshd.internal")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(wanted, critical=False).sign(key, hashes.SHA256())
    issued = authority.issue(NODE, request.public_bytes(Encoding.PEM).decode(), NOW)
    assert b"control" not in x509.load_pem_x509_certificate(issued.encode()).public_bytes(
        Encoding.DER
    )


def test_other_keys_and_texts_are_refused(authority: MeshAuthority) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for key in (
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP384R1()),
    ):
        request = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        with pytest.raises(BadRequest, match="no ECDSA P-256 key"):
            authority.issue(NODE, request, NOW)
    with pytest.raises(BadRequest, match="cannot be read"):
        authority.issue(NODE, "nonsense", NOW)


def test_only_tls_13_with_a_certificate_is_spoken(authority: MeshAuthority, tmp_path: Path) -> None:
    server = authority.server_context(tmp_path, NOW)
    key, request = new_request()
    chain = key + authority.issue(NODE, request, NOW)
    client = client_context(authority.certificate, chain, tmp_path)
    for context in (server, client):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert client.check_hostname
    assert list(tmp_path.iterdir()) == []  # no key is left behind


@pytest.mark.parametrize("blocks", [ONE, ONE[::-1]])
def test_an_authority_in_a_file_is_read(tmp_path: Path, blocks: tuple[str, str]) -> None:
    (file := tmp_path / "authority").write_text("".join(blocks))
    assert read_authority_file(str(file)) == ONE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "cannot be read: it is not text"),
        (b"", "has no key and certificate of an authority; `meshd node authority` makes them"),
        (ONE[0].encode(), "has no key and certificate"),
        ((ONE[0] + OTHER[1]).encode(), "is not that of the certificate"),
        ((ONE[0] + ONE[1].replace("M", "?", 1)).encode(), "has no key and certificate"),
    ],
)
def test_a_file_that_is_no_authority_is_refused(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "authority"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadAuthority, match=expected):
        read_authority_file(str(file))


def test_a_certificate_of_a_node_is_no_authority(tmp_path: Path, authority: MeshAuthority) -> None:
    key, request = new_request()
    (file := tmp_path / "node").write_text(key + authority.issue(NODE, request, NOW))
    with pytest.raises(BadAuthority, match="is not an authority"):
        read_authority_file(str(file))
