"""The part of a network's addresses that the engine leaves free."""

from typing import Any

import pytest

from meshd.model.runtime import AddressRange
from meshd.runtime.docker.addresses.ranges import address_range, divide, divide_given, free_block
from meshd.runtime.docker.firewall_rules import Bridge

POOL = {"Subnet": "172.18.0.0/16", "IPRange": "172.18.0.0/17", "Gateway": "172.18.0.1"}


@pytest.mark.parametrize(
    ("subnet", "lower", "gateway", "block"),
    [
        ("172.18.0.0/16", "172.18.0.0/17", "172.18.0.1", "172.18.255.0/24"),
        ("192.168.16.0/20", "192.168.16.0/21", "192.168.16.1", "192.168.31.0/24"),
        ("10.1.2.0/24", "10.1.2.0/25", "10.1.2.1", "10.1.2.192/26"),
        ("10.1.2.0/28", "10.1.2.0/29", "10.1.2.1", "10.1.2.12/30"),
    ],
)
def test_a_network_is_divided(subnet: str, lower: str, gateway: str, block: str) -> None:
    pools = divide([{"Subnet": subnet, "Gateway": gateway}])

    assert pools == [{"Subnet": subnet, "IPRange": lower, "Gateway": gateway}]
    assert free_block(pools) == (block, subnet)


def test_networks_that_cannot_be_divided() -> None:
    assert divide([{"Subnet": "10.1.2.0/29"}]) is None
    assert divide([{"Subnet": "fd00::/64"}]) is None
    assert divide([]) is None
    both = divide([{"Subnet": "fd00::/64"}, {"Subnet": "10.0.0.0/24"}])
    assert both is not None
    assert both[0] == {"Subnet": "fd00::/64"}


@pytest.mark.parametrize(
    ("pools", "block"),
    [
        ([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}], None),  # an earlier version's
        ([POOL | {"IPRange": "172.18.0.0/16"}], None),
        ([POOL | {"IPRange": "172.18.128.0/17"}], "172.18.127.0/24"),
        ([POOL | {"Gateway": "172.18.255.254/16"}], "172.18.254.0/24"),
        ([POOL | {"AuxiliaryAddresses": {"x": "172.18.255.9"}}], "172.18.254.0/24"),
        ([{"Subnet": "fd00::/64", "IPRange": "fd00::/96"}, POOL], "172.18.255.0/24"),
        ([], None),
    ],
)
def test_the_free_part_of_a_network(pools: list[dict[str, Any]], block: str | None) -> None:
    found = free_block(pools)

    assert (found and found[0]) == block


def test_a_range_of_a_network_on_the_engine() -> None:
    network = {
        "Name": "shop.web",
        "Driver": "bridge",
        "IPAM": {"Config": [POOL]},
        "Labels": {"mesh.project": "shop", "mesh.service": "web"},
    }
    bridge = Bridge("br-web", "172.18.0.1", internal=False)

    assert address_range(network, bridge, usable=True) == AddressRange(
        "shop.web", "shop", "web", "172.18.0.1", "172.18.0.0/16", "172.18.255.0/24"
    )
    assert address_range(network | {"Driver": "macvlan"}, bridge, usable=True) is None
    assert address_range(network | {"IPAM": {"Config": None}}, bridge, usable=True) is None


GIVEN = {"Subnet": "10.5.0.0/24"}


@pytest.mark.parametrize(
    ("pool", "static", "ranged", "block"),
    [
        (GIVEN, [], ("10.5.0.0/25", "10.5.0.1"), "10.5.0.192/26"),
        (GIVEN | {"Gateway": "10.5.0.254"}, [], ("10.5.0.0/25", "10.5.0.254"), "10.5.0.128/26"),
        (GIVEN, ["10.5.0.5", "10.5.0.200"], ("10.5.0.0/25", "10.5.0.1"), "10.5.0.128/26"),
        (GIVEN, ["10.5.0.130", "10.5.0.200"], ("10.5.0.128/25", "10.5.0.1"), "10.5.0.64/26"),
        (
            GIVEN | {"AuxiliaryAddresses": {"x": "10.5.0.250"}},
            [],
            ("10.5.0.0/25", "10.5.0.1"),
            "10.5.0.128/26",
        ),
    ],
)
def test_a_subnet_of_the_file_is_divided_around_its_addresses(
    pool: dict[str, Any], static: list[str], ranged: tuple[str, str], block: str
) -> None:
    six = {"Subnet": "fd00::/64"}
    found = divide_given([six, pool], static)

    assert found is not None
    assert found[0] == [six, pool | {"IPRange": ranged[0], "Gateway": ranged[1]}]
    assert found[1] == block


@pytest.mark.parametrize(
    ("pool", "static"),
    [
        (GIVEN | {"IPRange": "10.5.0.0/25"}, []),
        ({"Subnet": "10.5.0.0/29"}, []),
        ({"Subnet": "fd00::/64"}, []),
        ({"Gateway": "10.5.0.1"}, []),
        (GIVEN, ["10.5.0.5", "10.5.0.70", "10.5.0.130", "10.5.0.200"]),
    ],
)
def test_a_subnet_of_the_file_that_cannot_be_divided(
    pool: dict[str, Any], static: list[str]
) -> None:
    assert divide_given([pool], static) is None


def test_the_free_part_that_was_chosen_for_a_network_is_kept() -> None:
    network = {
        "Name": "shop_front",
        "Driver": "bridge",
        "IPAM": {"Config": [POOL]},
        "Labels": {"mesh.project": "shop", "mesh.free-part": "172.18.200.0/24"},
    }
    bridge = Bridge("br-front", "172.18.0.1", internal=False)
    found = address_range(network, bridge, usable=True)
    assert found is not None
    assert found.block == "172.18.200.0/24"
