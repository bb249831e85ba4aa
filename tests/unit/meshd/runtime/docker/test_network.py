"""The requests for networks, and when an existing one does not fit."""

from typing import Any

import pytest

from meshd.runtime.docker.network import create_body, find_difference
from meshd.spec.model import AddressPool, Network

NETWORK = Network(
    name="back",
    driver="macvlan",
    driver_opts={"parent": "eth0"},
    ipam_driver="x",
    ipam_options={"o": "1"},
    pools=(
        AddressPool(
            subnet="10.1.0.0/16",
            ip_range="10.1.5.0/24",
            gateway="10.1.0.9",
            aux_addresses={"host1": "10.1.5.5"},
        ),
        AddressPool(subnet="fd00::/64"),
    ),
    enable_ipv4=False,
    enable_ipv6=True,
    attachable=True,
    labels={"team": "food"},
)


def test_a_network_as_declared() -> None:
    assert create_body("shop_back", True, {"mesh.managed": "1"}, NETWORK) == {
        "Name": "shop_back",
        "CheckDuplicate": True,
        "Driver": "macvlan",
        "Options": {"parent": "eth0"},
        "Internal": True,
        "Attachable": True,
        "EnableIPv6": True,
        "EnableIPv4": False,
        "Labels": {"team": "food", "mesh.managed": "1"},
        "IPAM": {
            "Driver": "x",
            "Options": {"o": "1"},
            "Config": [
                {
                    "Subnet": "10.1.0.0/16",
                    "IPRange": "10.1.5.0/24",
                    "Gateway": "10.1.0.9",
                    "AuxiliaryAddresses": {"host1": "10.1.5.5"},
                },
                {"Subnet": "fd00::/64"},
            ],
        },
    }


def test_a_network_with_the_defaults_of_the_engine() -> None:
    expected = {
        "Name": "n", "CheckDuplicate": True, "Driver": "bridge", "Internal": False, "Labels": {},
    }  # fmt: skip
    assert create_body("n", None, {}, Network(name="n")) == expected
    assert create_body("n", None, {}) == expected


EXISTING: dict[str, Any] = {
    "Name": "shop_back",
    "Internal": False,
    "Driver": "bridge",
    "Options": {"a": "1", "b": "2"},
    "EnableIPv6": False,
    "IPAM": {"Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.9/16"}]},
}


@pytest.mark.parametrize(
    ("network", "difference"),
    [
        ({}, None),
        ({"driver_opts": {"a": "1"}}, None),
        ({"pools": (AddressPool(subnet="10.1.0.0/16", gateway="10.1.0.9"),)}, None),
        ({"driver": "macvlan"}, "its driver is bridge instead of macvlan"),
        ({"driver_opts": {"b": "3"}}, "its option b is 2 instead of 3"),
        ({"driver_opts": {"c": "3"}}, "its option c is not set instead of 3"),
        ({"enable_ipv6": True}, "it has no IPv6"),
        (
            {"pools": (AddressPool(subnet="10.2.0.0/16"),)},
            "it does not have the subnet 10.2.0.0/16 of the file as written",
        ),
    ],
)
def test_what_the_file_sets_is_compared(network: dict[str, Any], difference: str | None) -> None:
    body = create_body("shop_back", False, {}, Network(name="back", **network))
    assert find_difference(EXISTING, body) == difference


def test_internal_is_compared() -> None:
    assert find_difference(EXISTING, create_body("n", True, {})) == "should be internal"
    inner = {**EXISTING, "Internal": True}
    assert find_difference(inner, create_body("n", False, {})) == "should not be internal"
