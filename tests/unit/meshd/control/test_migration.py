"""Which replicas on the engine of a host are replaced next by replicas in the Swarm."""

from typing import Any

import pytest

from meshd.control.migration import choose_next, dependency_order
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.spec.model import Service


def service(name: str, *depends: str) -> DesiredService:
    spec = Service(name=name, image="x", depends_on=depends)
    return DesiredService(project="shop", spec=spec, revision="r1", desired=1)


def replica(name: str, service: str, **fields: Any) -> Replica:
    given = {"phase": Phase.READY}
    return Replica(name=name, project="shop", service=service, revision="r1", **{**given, **fields})


SERVICES = [service("web", "api"), service("api", "db"), service("db"), service("alone")]


def test_what_others_depend_on_comes_first() -> None:
    """Also: a cycle, and a dependency on a service of no project."""
    assert dependency_order(SERVICES) == ["shop/alone", "shop/db", "shop/api", "shop/web"]
    cycle = [service("a", "b"), service("b", "a", "gone")]
    assert sorted(dependency_order(cycle)) == ["shop/a", "shop/b"]


WEB = [replica("web-1", "web"), replica("web-2", "web")]
API, DB = replica("api-1", "api"), replica("db-1", "db")
HERE = ("web-1", "web-2", "api-1", "db-1")


@pytest.mark.parametrize(
    ("replicas", "on_engine", "staying", "chosen"),
    [
        ([*WEB, API, DB], HERE, (), ["db-1"]),
        ([*WEB, API, DB], HERE, ("shop/db",), ["api-1"]),
        ([*WEB, API], HERE, (), ["api-1"]),
        (WEB, HERE, (), ["web-1", "web-2"]),
        (WEB, ("web-2",), (), ["web-2"]),  # web-1 is in the Swarm
        (WEB, (), (), []),
        ([*WEB, replica("api-1", "api", phase=Phase.DRAINING)], HERE, (), []),
        ([*WEB, replica("api-1", "api", replaced_for="it moves")], HERE, (), []),
        ([*WEB, replica("api-1", "api", phase=Phase.FAILED)], HERE, (), ["web-1", "web-2"]),
        ([*WEB, replica("api-1", "api", managed=False)], HERE, (), ["web-1", "web-2"]),
    ],
)
def test_one_service_moves_after_the_other(
    replicas: list[Replica], on_engine: tuple[str, ...], staying: tuple[str, ...], chosen: list[str]
) -> None:
    found = choose_next(SERVICES, replicas, on_engine, staying)
    assert [each.name for each in found] == chosen
