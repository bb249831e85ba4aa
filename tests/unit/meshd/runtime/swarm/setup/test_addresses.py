"""The address that an engine advertises: it takes no host name."""

from collections.abc import Sequence

import pytest

from meshd.runtime.base import RuntimeFailure
from meshd.runtime.swarm.setup.addresses import address_of, advertised_address, resolve

NAMES = {
    "m1": ["10.0.0.1"],
    "both.example.com": ["2001:db8::1", "10.0.0.2"],
    "six": ["2001:db8::1"],
    "debian": ["127.0.1.1"],
    "local": ["::1", "fe80::1", "10.0.0.3"],
}


async def from_names(name: str) -> Sequence[str]:
    return NAMES.get(name, ())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("m1", "10.0.0.1"),
        ("both.example.com", "10.0.0.2"),
        ("six", "2001:db8::1"),
        ("local", "10.0.0.3"),
        ("debian", ""),
        ("127.0.0.1", ""),
        ("alias-of-ssh", ""),
        ("", ""),
    ],
)
async def test_the_host_of_an_engine_is_an_ip_address(host: str, expected: str) -> None:
    assert await address_of(host, from_names) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("10.0.0.9:2378", "10.0.0.9:2378"),
        ("[2001:db8::9]:2378", "[2001:db8::9]:2378"),
        ("127.0.0.1", "127.0.0.1"),
        ("m1", "10.0.0.1"),
        ("m1:2378", "10.0.0.1:2378"),
        ("six:2378", "[2001:db8::1]:2378"),
        ("eth0", "eth0"),
        ("eth0:2378", "eth0:2378"),
    ],
)
async def test_a_given_address_is_one_that_engines_take(given: str, expected: str) -> None:
    assert await advertised_address(given, from_names) == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("nowhere.example.com", "nowhere.example.com cannot be resolved"),
        ("two words", "two words cannot be resolved"),
        ("debian", "debian leads to this machine itself"),
        ("0.0.0.0", "not the address of one host"),
        ("a/b", "cannot be resolved; expected an IP address"),
    ],
)
async def test_other_addresses_are_refused(given: str, problem: str) -> None:
    with pytest.raises(RuntimeFailure, match=problem):
        await advertised_address(given, from_names)


async def test_names_are_resolved_as_this_machine_does() -> None:
    assert set(await resolve("localhost")) <= {"127.0.0.1", "::1"}
    for nonsense in ("name.invalid", "a..b", "x" * 300):
        assert not await resolve(nonsense)
