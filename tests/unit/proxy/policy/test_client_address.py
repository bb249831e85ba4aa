"""The client's address from forwarding fields, and the key under which it is limited."""

import pytest

from proxy.policy.client_address import find_client, limit_key, parse_node
from proxy.state.trusted_networks import TrustedNetworks

TRUSTED = TrustedNetworks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], "10.0.0.1"),
        ([b"X-Forwarded-For: 203.0.113.1"], "203.0.113.1"),
        ([b"X-Forwarded-For: 6.6.6.6, 203.0.113.1"], "203.0.113.1"),
        ([b"X-Forwarded-For: 6.6.6.6, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ([b"X-Forwarded-For: 6.6.6.6", b"x-forwarded-for: 203.0.113.1"], "203.0.113.1"),
        ([b"X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([b"X-Forwarded-For: 203.0.113.1:4711"], "203.0.113.1"),
        ([b"X-Forwarded-For: 2001:DB8::0:1"], "2001:db8::1"),
        ([b"X-Forwarded-For: [2001:db8::1]:80"], "2001:db8::1"),
        ([b"X-Forwarded-For: ::ffff:203.0.113.1"], "203.0.113.1"),
        ([b"X-Forwarded-For: 203.0.113.1, unknown"], "10.0.0.1"),
        ([b"X-Forwarded-For: 203.0.113.1, ,10.0.0.2"], "10.0.0.2"),
        ([b'X-Forwarded-For: evil"}, 10.0.0.2'], "10.0.0.2"),
        ([b"X-Forwarded-For: fe80::1%eth0"], "10.0.0.1"),
        ([b"X-Forwarded-For: 1.2.3"], "10.0.0.1"),
        ([b"X-Forwarded-For:"], "10.0.0.1"),
        ([b"Forwarded: for=203.0.113.1;proto=https"], "203.0.113.1"),
        ([b'Forwarded: For="[2001:db8::1]:47";host=a, proto=http;for=10.0.0.2'], "2001:db8::1"),
        ([b"Forwarded: for=203.0.113.1, for=_hidden"], "10.0.0.1"),
        ([b"Forwarded: for=203.0.113.1, proto=https"], "10.0.0.1"),
        ([b"Forwarded: host=xfor=1.1.1.1"], "10.0.0.1"),
        ([b"Forwarded: for=6.6.6.6", b"X-Forwarded-For: 203.0.113.1"], "203.0.113.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_trusted(
    lines: list[bytes], client: str
) -> None:
    assert find_client(lines, "10.0.0.1", TRUSTED.has) == client


def test_an_entry_that_is_no_address() -> None:
    for node in (b"", b"unknown", b"_a", b"1.2.3.4.5", b"[::1", b"::1]", b"1.2.3.4:", b"a.b.c.d"):
        assert parse_node(node) is None


def test_ipv6_clients_are_limited_by_network() -> None:
    assert limit_key(b"203.0.113.1") == b"203.0.113.1"
    assert limit_key(b"unknown") == b"unknown"
    assert limit_key(b"2001:db8:0:1::5") == limit_key(b"2001:db8:0:1:ffff::9")
    assert limit_key(b"2001:db8:0:1::5") != limit_key(b"2001:db8:0:2::5")
    assert limit_key(b"fe80::1%eth0") == limit_key(b"fe80::2")
    assert limit_key(b"::x") == b"::x"


def test_unix_sockets_may_be_trusted() -> None:
    one = TrustedNetworks(["unix:/run/a.sock", "10.0.0.0/8"])
    assert one.has_peer("", "unix:/run/a.sock")
    assert not one.has_peer("", "unix:/run/b.sock")
    assert not one.has_peer("", "127.0.0.1:80")
    assert one.has_peer("10.1.1.1", "127.0.0.1:80")
    assert TrustedNetworks(["unix:"]).has_peer("", "unix:/run/b.sock")
    assert not TrustedNetworks(["unix:"]).has_peer("10.1.1.1", "unix:/run/b.sock")
