"""Who the holder of a certificate is."""

import pytest

from meshd.node_proxy.identity import (
    CONTROL_NAME,
    PeerIdentity,
    PeerRole,
    is_node_name,
    read_identity,
    to_dns_name,
)


@pytest.mark.parametrize("name", ["w1", "w-1.example.com", "a" * 63])
def test_host_names_are_names_of_nodes(name: str) -> None:
    assert is_node_name(name)
    for role in PeerRole:
        identity = PeerIdentity(role, name)
        found = {"subjectAltName": (("DNS", to_dns_name(identity)),)}
        assert read_identity(found) == identity


@pytest.mark.parametrize("name", ["", "W1", "a b", "-a", "a\n", "../x", "a" * 64, "ä", "a.", ".a"])
def test_other_texts_are_not(name: str) -> None:
    assert not is_node_name(name)


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        {},
        {"subjectAltName": ()},
        {"subjectAltName": (("DNS", CONTROL_NAME),)},
        {"subjectAltName": (("URI", "w1.node.meshd.internal"),)},
        {"subjectAltName": (("DNS", "w1.node.meshd.internal"), ("DNS", "other"))},
    ],
)
def test_other_certificates_are_not_those_of_peers(certificate: dict[str, object] | None) -> None:
    assert read_identity(certificate) is None
