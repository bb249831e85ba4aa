"""`meshd exec`: which replica it takes."""

import pytest
from msgspec.structs import replace

from meshd.api.dto import ReplicaStatus
from meshd.cli.commands.exec import find_running_replica
from meshd.model.errors import NotFound
from tests.fakes import traffic


def test_the_best_replica_of_a_service_is_taken() -> None:
    status = traffic.status()
    service = status.services[0]
    replicas = tuple(
        ReplicaStatus(name, service.name, "r1", phase)
        for name, phase in (("a", "draining"), ("b", "starting"), ("c", "ready"), ("d", "failed"))
    )
    status = replace(status, services=(replace(service, replicas=replicas),))
    assert find_running_replica(status, service.name).name == "c"
    assert find_running_replica(status, f"{service.project}/{service.name}").name == "c"
    assert find_running_replica(status, "a").name == "a"
    with pytest.raises(NotFound, match="replica d does not run: it is failed"):
        find_running_replica(status, "d")
    status = replace(status, services=(replace(service, replicas=replicas[3:]),))
    with pytest.raises(NotFound, match="no replica of"):
        find_running_replica(status, service.name)
    with pytest.raises(NotFound, match="no service 'nonsense'"):
        find_running_replica(status, "nonsense")
