"""Rules that lead new connections to a port of the host to another one."""

import pytest

from meshd.model.runtime import PortRedirect
from meshd.runtime.docker.addresses.port_rules import (
    port_rules,
    ports_chain_of,
    ports_table,
    tracking_rules,
    unused_port_chains,
)

CHAIN = ports_chain_of("0123456789abcdef")
ALL = PortRedirect("0.0.0.0", 8080, 15900)
ONE = PortRedirect("10.0.0.5", 8080, 15901)
SIX = PortRedirect("::", 8080, 15900)
RULES = port_rules([ALL, ONE, SIX], "IPv4")
DOCKER = (
    "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"
    "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"
)
UP = "\n".join(
    [
        f"-N {CHAIN}",
        "-A PREROUTING -j MESHD-0123456789ab",
        f"-A PREROUTING -j {CHAIN}",
        f"-A OUTPUT -j {CHAIN}",
        DOCKER,
        *(f"-A {CHAIN} {rule}" for rule in RULES),
    ]
)


def test_each_redirect_is_one_rule_of_its_version() -> None:
    assert RULES == [
        "-p tcp -m addrtype --dst-type LOCAL -m tcp --dport 8080 -j REDIRECT --to-ports 15900",
        "-d 10.0.0.5/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:15901",
    ]
    assert port_rules([ALL, SIX], "IPv6") == RULES[:1]


@pytest.mark.parametrize(
    "listing",
    [
        DOCKER,
        UP.replace("15900", "15902"),
        UP.replace(f"-A OUTPUT -j {CHAIN}\n", ""),
        "\n".join([DOCKER, UP]),  # the engine's rules would come first
    ],
)
def test_the_rules_are_restored_before_those_of_the_engine(listing: str) -> None:
    made = ports_table(CHAIN, RULES, listing)

    assert made is not None
    lines = made.splitlines()
    assert lines[:2] == ["*nat", f":{CHAIN} - [0:0]"]
    place = 2 if "MESHD-0123456789ab" in listing else 1
    assert lines[-3:] == [f"-I PREROUTING {place} -j {CHAIN}", f"-I OUTPUT 1 -j {CHAIN}", "COMMIT"]


def test_a_table_that_is_as_wanted_is_left_alone() -> None:
    assert ports_table(CHAIN, RULES, UP) is None
    assert ports_table(CHAIN, [], DOCKER) is None


def test_the_chain_is_removed_with_its_jumps() -> None:
    removal = ports_table(CHAIN, [], UP)
    assert removal is not None
    assert removal.splitlines()[2:] == [
        f"-D PREROUTING -j {CHAIN}",
        f"-D OUTPUT -j {CHAIN}",
        f"-X {CHAIN}",
        "COMMIT",
    ]


def test_a_chain_that_leads_nowhere_was_left_by_another_mesh() -> None:
    assert unused_port_chains(UP, ports_chain_of("f" * 12), {80, 15901}) == []
    assert unused_port_chains(UP, ports_chain_of("f" * 12), {80}) == [CHAIN]
    assert unused_port_chains(UP, CHAIN, {80}) == []
    kept = f"-N {CHAIN}\n" + "\n".join(
        f"-A {CHAIN} {rule}" for rule in tracking_rules(CHAIN, [], UP, ())
    )
    assert unused_port_chains(kept, ports_chain_of("f" * 12), {80}) == [CHAIN]
    assert unused_port_chains(kept, ports_chain_of("f" * 12), {15900}) == []
