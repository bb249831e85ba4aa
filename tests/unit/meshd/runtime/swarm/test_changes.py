"""Events from two views of the Swarm, one after the other."""

from dataclasses import replace

import pytest

from meshd.model.runtime import ContainerHealth, ObservedReplica, ReplicaState
from meshd.runtime.swarm.changes import find_changes
from meshd.runtime.swarm.service_spec import STOPPED

CREATED = ObservedReplica(
    "web-1", "", "p", "web", "r", ReplicaState.CREATED, managed=True, created_at=1.0
)
RUNNING = replace(CREATED, runtime_id="t", state=ReplicaState.RUNNING, started_at=2.0, port=80)
STOPPING = replace(RUNNING, state=ReplicaState.STOPPING, labels={STOPPED: "1"})
STOPPED_BY_US = replace(STOPPING, state=ReplicaState.EXITED, finished_at=3.0, exit_code=0)
DIED = replace(RUNNING, state=ReplicaState.EXITED, finished_at=3.0, exit_code=1)
SUCCESSOR = replace(RUNNING, created_at=9.0, started_at=10.0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, CREATED, []),
        (CREATED, replace(CREATED, runtime_id="t"), []),
        (CREATED, RUNNING, [("started", 2.0)]),
        (None, RUNNING, [("started", 2.0)]),
        (RUNNING, RUNNING, []),
        (RUNNING, STOPPING, [("stopping", 5.0)]),
        (STOPPING, replace(STOPPING, port=0), []),
        (STOPPING, STOPPED_BY_US, [("died", 3.0)]),
        (RUNNING, STOPPED_BY_US, [("stopping", 3.0), ("died", 3.0)]),
        (RUNNING, DIED, [("died", 3.0)]),
        (CREATED, DIED, [("started", 2.0), ("died", 3.0)]),
        (DIED, None, [("removed", 5.0)]),
        (RUNNING, None, [("died", 5.0), ("removed", 5.0)]),
        (RUNNING, replace(RUNNING, health=ContainerHealth.HEALTHY), [("health", 5.0)]),
        (RUNNING, replace(RUNNING, port=81), [("changed", 5.0)]),
        (RUNNING, SUCCESSOR, [("died", 5.0), ("removed", 5.0), ("started", 10.0)]),
    ],
)
def test_events(
    before: ObservedReplica | None,
    after: ObservedReplica | None,
    expected: list[tuple[str, float]],
) -> None:
    views = [{} if seen is None else {seen.name: seen} for seen in (before, after)]
    events = list(find_changes(views[0], views[1], now=5.0))
    assert [(str(event.kind), event.at) for event in events] == expected
    assert all(event.name == "web-1" for event in events)
    assert all(event.replica is after for event in events if event.kind not in ("died", "removed"))
