"""`apply_event`: the view after one event, as a table."""

from dataclasses import replace

import pytest

from meshd.discovery.watch import apply_event
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, RuntimeEvent

RUNNING = ObservedReplica(
    "web-1", "id-2", "shop", "web", "r1", ReplicaState.RUNNING, True, "10.0.0.2", 80, created_at=20
)
EARLIER = replace(RUNNING, runtime_id="id-1", created_at=10, state=ReplicaState.EXITED)
LATER = replace(RUNNING, runtime_id="id-3", created_at=30)
EXITED = replace(RUNNING, state=ReplicaState.EXITED, host=None, port=0)
OTHER = replace(RUNNING, name="web-9", runtime_id="id-9")


@pytest.mark.parametrize(
    ("known", "kind", "new", "expected"),
    [
        (None, EventKind.STARTED, RUNNING, RUNNING),
        (RUNNING, EventKind.DIED, EXITED, EXITED),
        (RUNNING, EventKind.REMOVED, EXITED, None),
        (RUNNING, EventKind.REMOVED, None, None),
        (RUNNING, EventKind.STARTED, LATER, LATER),
        (RUNNING, EventKind.DIED, EARLIER, RUNNING),
        (RUNNING, EventKind.REMOVED, EARLIER, RUNNING),
        (RUNNING, EventKind.STOPPING, None, replace(RUNNING, state=ReplicaState.STOPPING)),
        (RUNNING, EventKind.DIED, None, EXITED),
        (RUNNING, EventKind.PAUSED, None, replace(RUNNING, state=ReplicaState.PAUSED)),
        (RUNNING, EventKind.HEALTH, None, RUNNING),
        (None, EventKind.DIED, None, None),
        (None, EventKind.REMOVED, None, None),
        (RUNNING, EventKind.RESYNC, None, RUNNING),
    ],
)
def test_the_view_after_an_event(
    known: ObservedReplica | None,
    kind: EventKind,
    new: ObservedReplica | None,
    expected: ObservedReplica | None,
) -> None:
    view = {"web-9": OTHER} | ({"web-1": known} if known else {})
    result = apply_event(view, RuntimeEvent(kind, "web-1", 1.0, new))
    assert result.get("web-1") == expected
    assert result["web-9"] == OTHER
