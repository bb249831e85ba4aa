"""Which service has which address on which network, and under which names it is found."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from meshd.model.runtime import AddressRange
from meshd.publish.virtual_addresses import VirtualAddresses, choose_address
from meshd.spec.model import Project
from meshd.store.virtual_addresses import VirtualAddressLog
from tests.support.stores import open_store

FRONT = AddressRange("shop_front", "shop", "", "10.1.0.1", "10.1.0.0/16", "10.1.255.0/24")
WEB = AddressRange("shop.web", "shop", "web", "10.2.0.1", "10.2.0.0/16", "10.2.255.0/24")


def project(**services: dict[str, Any]) -> Project:
    return Project.model_validate(
        {"name": "shop", "services": [{"name": n, "image": "i", **s} for n, s in services.items()]}
    )


SHOP = project(
    web={"networks": ["front"], "expose": [3000]},
    api={
        "networks": ["front"],
        "expose": [3000, 9000],
        "aliases": {"front": ["backend"], "other": ["hidden"]},
        "options": {"container_name": "shop-api-1"},
        "mesh": {"tcp": [5432]},
    },
    inner={"networks": ["back"]},
    nginx={"plain": True, "networks": ["back", "front"]},
)


@pytest.fixture
def log(tmp_path: Any) -> Iterator[VirtualAddressLog]:
    store = open_store(tmp_path)
    yield VirtualAddressLog(store)
    store.close()


def addresses(
    log: VirtualAddressLog, *ranges: AddressRange, of: Project = SHOP
) -> VirtualAddresses:
    made = VirtualAddresses(log)
    made.set_ranges("shop", ranges)
    made.set_projects([of])
    return made


def find(hosts: Mapping[str, str], targets: Mapping[str, str], name: str) -> dict[int, str]:
    """Return the service in the snapshot by port, at the address of a name."""
    at = hosts[name]
    return {
        int(address.partition(":")[2]): key
        for address, key in targets.items()
        if address.startswith(f"{at}:")
    }


def test_a_plain_caller_has_addresses_on_networks_that_it_shares(
    log: VirtualAddressLog,
) -> None:
    made = addresses(log, FRONT, WEB)

    hosts = made.host_names(SHOP, SHOP.service("nginx"))

    assert sorted(hosts) == ["api", "backend", "shop-api-1", "web"]
    assert all(address.startswith("10.1.255.") for address in hosts.values())
    assert len({hosts["api"], hosts["backend"], hosts["shop-api-1"]}) == 1
    assert hosts["api"] != hosts["web"], "both listen on port 3000"


def test_a_caller_of_the_mesh_has_all_services_on_its_own_network(log: VirtualAddressLog) -> None:
    made = addresses(log, FRONT, WEB)

    hosts = made.host_names(SHOP, SHOP.service("web"))

    assert sorted(hosts) == ["api", "backend", "hidden", "inner", "shop-api-1", "web"]
    assert all(address.startswith("10.2.255.") for address in hosts.values())
    assert find(hosts, made.targets(), "api") == {
        80: "shop/api",
        3000: "shop/api",
        9000: "shop/api:9000",
        5432: "shop/api:5432",
    }


def test_each_network_has_one_listener(log: VirtualAddressLog) -> None:
    listeners = addresses(log, FRONT, WEB).listeners()

    assert [(each.address, each.kind, each.caller, each.sources) for each in listeners] == [
        ("10.2.0.1:15780", "virtual", "shop/web", ("10.2.0.0/16",)),
        ("10.1.0.1:15780", "virtual", "shop/", ("10.1.0.0/16",)),
    ]


def test_an_address_is_kept_for_its_service(log: VirtualAddressLog) -> None:
    before = addresses(log, FRONT).host_names(SHOP, SHOP.service("nginx"))
    less = project(nginx={"plain": True, "networks": ["front"]}, new={"networks": ["front"]})
    new = addresses(log, FRONT, of=less).host_names(less, less.service("nginx"))["new"]

    assert new not in before.values(), "containers that know the old service may run"
    assert addresses(log, FRONT).host_names(SHOP, SHOP.service("nginx")) == before


def test_a_service_that_became_plain_keeps_its_address(
    log: VirtualAddressLog,
) -> None:
    api = addresses(log, FRONT).host_names(SHOP, SHOP.service("nginx"))["api"]
    now = project(
        api={"plain": True, "networks": ["front"], "expose": [3000]},
        nginx={"plain": True, "networks": ["front"]},
    )
    made = addresses(log, FRONT, of=now)

    assert made.host_names(now, now.service("nginx")) == {}
    assert made.targets()[f"{api}:3000"] == "shop/api"
    assert "shop/api" in made.services()


def test_a_network_with_another_range_gets_other_addresses(log: VirtualAddressLog) -> None:
    addresses(log, FRONT)
    moved = AddressRange("shop_front", "shop", "", "10.9.0.1", "10.9.0.0/16", "10.9.255.0/24")

    hosts = addresses(log, moved).host_names(SHOP, SHOP.service("nginx"))

    assert hosts["api"].startswith("10.9.255.")


def test_without_a_usable_range_names_are_left_to_the_runtime(log: VirtualAddressLog) -> None:
    off = AddressRange(
        "shop_front", "shop", "", "10.1.0.1", "10.1.0.0/16", "10.1.255.0/24", usable=False
    )
    made = addresses(log, off)

    assert made.host_names(SHOP, SHOP.service("nginx")) == {}
    assert made.listeners(), "containers that were started before still need it"


def test_a_network_with_a_fixed_address_in_the_range_has_none(log: VirtualAddressLog) -> None:
    fixed = project(
        api={"networks": ["front"]},
        nginx={
            "plain": True,
            "networks": ["front"],
            "attachments": {"front": {"ipv4_address": "10.1.255.7"}},
        },
    )

    assert addresses(log, FRONT, of=fixed).host_names(fixed, fixed.service("nginx")) == {}


def test_names_of_the_file_win(log: VirtualAddressLog) -> None:
    own = project(
        api={"networks": ["front"]},
        nginx={"plain": True, "networks": ["front"], "extra_hosts": {"api": "192.0.2.1"}},
    )

    assert addresses(log, FRONT, of=own).host_names(own, own.service("nginx")) == {}


def test_a_project_that_is_gone_is_forgotten(log: VirtualAddressLog) -> None:
    made = addresses(log, FRONT)
    made.set_projects([])
    made.forget("shop")

    assert (made.targets(), made.listeners(), made.services()) == ({}, (), frozenset())
    assert log.read() == {}


def test_addresses_of_a_small_block() -> None:
    used: set[str] = set()
    for key in ("a", "b"):
        address = choose_address("10.0.0.12/30", key, used)
        assert address in {"10.0.0.13", "10.0.0.14"}
        used.add(address)
    assert len(used) == 2
    assert choose_address("10.0.0.12/30", "c", used) is None
