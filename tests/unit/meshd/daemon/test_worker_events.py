"""What becomes an event of what the supervisor tells."""

from pathlib import Path

import pytest

from meshd.daemon.worker_events import Feedback
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.telemetry.ingest import Ingest
from proxy.wire.report import Ack, ListenFailed, Listening, Message, SnapshotRefused, Workers
from proxy.wire.snapshot import Generation

BAD = SnapshotRefused(1, Generation(1, 2), "ValueError: no network")
LATER = SnapshotRefused(1, Generation(1, 3), "ValueError: no network")
DEAF = ListenFailed("10.0.0.1:80", "Address already in use")


@pytest.mark.parametrize(
    ("told", "events"),
    [
        ([BAD, LATER], ["snapshot.refused"]),
        ([BAD, SnapshotRefused(2, BAD.generation, BAD.reason)], ["snapshot.refused"] * 2),
        ([BAD, Ack(1, Generation(1, 1)), LATER], ["snapshot.refused"]),
        ([BAD, Ack(1, Generation(1, 3)), LATER], ["snapshot.refused"] * 2),
        ([DEAF, DEAF, ListenFailed("10.0.0.1:80", "No such address")], ["listen.failed"] * 2),
        ([DEAF, Listening({"10.0.0.1:80": "10.0.0.1:80"}), DEAF], ["listen.failed"] * 2),
        ([Workers((1, 2)), Workers((2, 3))], ["worker.replaced"]),
    ],
)
def test_what_goes_on_is_told_once(told: list[Message], events: list[str], tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    log = EventLog(store)
    log.open()
    feedback = Feedback(Ingest(), log)
    for message in told:
        feedback.take(message)
    assert [str(event.kind) for event in log.since(0, 10)] == events
    store.close()


def test_a_refusal_says_who_what_and_why(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    log = EventLog(store)
    Feedback(Ingest(), log).take(BAD)
    (event,) = log.since(0, 10)
    assert event.text == (
        "worker 1 cannot route by generation 1.2 and goes on with the one before: "
        "ValueError: no network"
    )
    store.close()
