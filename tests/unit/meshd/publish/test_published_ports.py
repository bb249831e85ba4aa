"""Ports of the host: who opens them, and which conflict."""

from typing import Any

import pytest

from meshd.publish.published_ports import (
    FREE_PORTS,
    find_port_conflicts,
    list_host_ports,
    listen_addresses,
    with_chosen_ports,
)
from meshd.spec.model import Mesh, Project, Scale, UpdateConfig


def project(name: str = "shop", **services: dict[str, Any]) -> Project:
    return Project.model_validate(
        {"name": name, "services": [{"name": n, "image": "i", **s} for n, s in services.items()]}
    )


def published(*ports: str) -> list[dict[str, Any]]:
    """Ports like `8080:80`, `127.0.0.1:8080:80/udp` or `80`."""
    found = []
    for text in ports:
        port, _, protocol = text.partition("/")
        *outside, target = port.split(":")
        host, number = ("", *outside)[-2:] if outside else ("", "")
        found.append(
            {"target": int(target), "published": number, "host_ip": host,
             "protocol": protocol or "tcp"}
        )  # fmt: skip
    return found


def test_the_mesh_opens_tcp_ports_of_services_that_it_manages() -> None:
    shop = project(
        web={"expose": [80, 443], "ports": published("8080:80", "127.0.0.1:8443:443", "53:53/udp")},
        db={"plain": True, "ports": published("5432:5432")},
    )

    ports = [port for port in list_host_ports([shop]) if not port.by_engine]

    assert [(port.port, port.name, listen_addresses(port, ipv6=True)) for port in ports] == [
        (8080, "shop/web", ["0.0.0.0", "::"]),
        (8443, "shop/web:443", ["127.0.0.1"]),
    ]
    assert listen_addresses(ports[0], ipv6=False) == ["0.0.0.0"]


def test_a_port_that_the_file_leaves_to_the_host_is_chosen_and_stays() -> None:
    web = {"ports": published("80", "8000-8001:81")}
    shop = project(a=web, b=web, c={"plain": True, "ports": published("8000:1", "80")})

    ports = {(each.service, each.target): each.port for each in list_host_ports([shop])}

    assert ports["shop/a", 81] == 8001, "8000 is taken"
    assert ("shop/b", 81) not in ports, "the range is exhausted"
    assert ports["shop/a", 80] in FREE_PORTS
    assert ports["shop/a", 80] != ports["shop/b", 80]
    assert ("shop/c", 80) not in ports, "the engine chooses it"
    named = with_chosen_ports("shop/a", shop.service("a"), list_host_ports([shop]))
    assert str(named.ports[1]) == "8001:81/tcp"
    alone = list_host_ports([project(a=web)])
    assert {each.port for each in alone} >= {ports["shop/a", 80]}


def test_a_chosen_port_at_which_the_mesh_cannot_listen_is_replaced_by_another() -> None:
    shop = project(a={"ports": published("80", "8000-8001:81", "8080:82")})

    def ports(refused: list[str]) -> dict[int, int]:
        return {each.target: each.port for each in list_host_ports([shop], refused)}

    first = ports([])
    second = ports([f"0.0.0.0:{first[80]}", "[::]:8000", "0.0.0.0:8080"])

    assert second[80] in FREE_PORTS
    assert second[80] != first[80]
    assert (first[81], second[81]) == (8000, 8001)
    assert second[82] == 8080, "the file gives it"
    assert 81 not in ports(["0.0.0.0:8000", "0.0.0.0:8001"])


def test_a_chosen_port_that_is_open_already_stays() -> None:
    shop = project(a={"expose": [80, 81], "ports": published("80", "8000-8001:81")})
    held = [("shop/a", 62000), ("shop/a:81", 8001), ("shop/b", 62001)]

    ports = {each.target: each for each in list_host_ports([shop], (), held)}

    assert (ports[80].port, ports[81].port) == (62000, 8001)
    assert all(each.chosen for each in ports.values())
    refused = list_host_ports([shop], ["0.0.0.0:62000"], held)
    assert 62000 not in {each.port for each in refused}


@pytest.mark.parametrize(
    ("one", "two", "conflict"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "127.0.0.1:8080:80", True),
        ("0.0.0.0:8080:80", "192.0.2.1:8080:80", True),
        ("127.0.0.1:8080:80", "192.0.2.1:8080:80", False),
        ("8080:80", "8080:80/udp", False),
        ("8080:80", "8081:80", False),
    ],
)
def test_conflicts(one: str, two: str, conflict: bool) -> None:
    shop = project(web={"ports": published(one)}, db={"plain": True, "ports": published(two)})
    other = project("other", x={"ports": published(two)})

    assert bool(find_port_conflicts(shop, [])) == conflict
    alone = project(web={"ports": published(one)})
    assert bool(find_port_conflicts(alone, [other])) == conflict


def passed_on(text: str, *names: str) -> dict[str, Any]:
    """Return a service that publishes a port for TLS clients that ask for these names."""
    (port,) = published(text)
    return {"ports": [port], "mesh": {"tcp": [{"port": port["target"], "sni": list(names)}]}}


@pytest.mark.parametrize(
    ("one", "two", "conflict"),
    [
        (passed_on("443:1", "a.test"), passed_on("443:2", "b.test"), False),
        (passed_on("443:1", "a.test"), passed_on("443:1"), False),
        (passed_on("443:1"), passed_on("443:2"), True),
        (passed_on("443:1", "A.test", "b.test"), passed_on("443:2", "a.test"), True),
        (passed_on("443:1", "a.test"), passed_on("127.0.0.1:443:2", "b.test"), True),
        (passed_on("443:1", "a.test"), {"ports": published("443:80")}, True),
        (passed_on("443:1", "a.test"), {"plain": True, "ports": published("443:80")}, True),
    ],
)
def test_server_names_share_a_port(
    one: dict[str, Any], two: dict[str, Any], conflict: bool
) -> None:
    for shop, others in (
        (project(a=one, b=two), []),
        (project(a=one), [project("other", b=two)]),
        (project(a=two), [project("other", b=one)]),
    ):
        problems = find_port_conflicts(shop, others)
        assert bool(problems) == conflict
    if conflict and "plain" not in two and one["mesh"]["tcp"][0]["sni"]:
        (problem,) = find_port_conflicts(project(a=two, b=one), [])
        assert problem.endswith(
            "or give both different server names: x-mesh.tcp: [{port: …, sni: …}]"
        )


def test_texts_of_conflicts() -> None:
    shop = project(
        web={"ports": published("127.0.0.1:8080:80")},
        db={"plain": True, "replicas": 2, "ports": published("8080:80", "5432:5432")},
    )
    other = project("other", x={"ports": published("8080:80")})

    assert find_port_conflicts(shop, [other]) == [
        "service web: port 127.0.0.1:8080/tcp of the host is already published by other/x; publish "
        "another port",
        "service db: port 8080/tcp of the host is already published by web; publish another port",
        "service db: 2 replicas cannot all publish port 5432/tcp of the host; publish a range, or "
        "add x-mesh so that the mesh publishes a TCP port",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, ""),
        ({"replicas": 2}, "2 replicas cannot all publish port 5353/udp"),
        ({"mesh": Mesh(scale=Scale(min=1, max=3, rps=5))}, "3 replicas cannot all publish"),
        ({"update": UpdateConfig(order="start-first")}, "remove order: start-first"),
        ({"update": UpdateConfig(order="start-first"), "plain": True}, ""),
        ({"replicas": 2, "ports": published("5353-5360:53/udp")}, ""),
    ],
)
def test_only_one_container_has_a_port_that_the_engine_opens(
    fields: dict[str, Any], problem: str
) -> None:
    shop = project(dns={"ports": published("5353:53/udp"), **fields})

    found = find_port_conflicts(shop, [])
    assert len(found) == bool(problem)
    assert problem in "".join(found)
