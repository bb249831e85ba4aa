"""Which messages of the supervisor become events."""

from pathlib import Path

import msgspec
import pytest

from meshd.daemon.worker_events import WorkerEvents
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.telemetry.ingest import Ingest
from proxy.wire.report import (
    Ack,
    ListenFailed,
    Listening,
    Message,
    Report,
    SnapshotRefused,
    Workers,
)
from proxy.wire.snapshot import Generation

BAD = SnapshotRefused(1, Generation(1, 2), "ValueError: no network")
LATER = SnapshotRefused(1, Generation(1, 3), "ValueError: no network")
SHORT = Report(1, 1, 0.0, 1.0, Generation(), accept_pauses=1, descriptor_limit=120)
FAILED = ListenFailed("10.0.0.1:80", "Address already in use")


def handler(log: EventLog) -> WorkerEvents:
    return WorkerEvents(Ingest(), log, (), lambda message: None, lambda: None, lambda: 1.0)


@pytest.mark.parametrize(
    ("messages", "events"),
    [
        ([BAD, LATER], ["snapshot.refused"]),
        ([BAD, SnapshotRefused(2, BAD.generation, BAD.reason)], ["snapshot.refused"] * 2),
        ([BAD, Ack(1, Generation(1, 1)), LATER], ["snapshot.refused"]),
        ([BAD, Ack(1, Generation(1, 3)), LATER], ["snapshot.refused"] * 2),
        (
            [FAILED, FAILED, ListenFailed("10.0.0.1:80", "No such address")],
            ["listen.failed"] * 2,
        ),
        (
            [FAILED, Listening({"10.0.0.1:80": "10.0.0.1:80"}), FAILED],
            ["listen.failed"] * 2,
        ),
        ([Workers((1, 2)), Workers((2, 3))], ["worker.replaced"]),
        ([SHORT, SHORT], ["worker.short-of-descriptors"]),
        ([SHORT, msgspec.structs.replace(SHORT, worker=2)], ["worker.short-of-descriptors"] * 2),
        ([Report(1, 1, 0.0, 1.0, Generation())], []),
    ],
)
def test_a_repeated_message_is_recorded_once(
    messages: list[Message], events: list[str], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    store.open()
    log = EventLog(store)
    log.open()
    worker_events = handler(log)
    for message in messages:
        worker_events.take(message)
    assert [str(event.kind) for event in log.since(0, 10)] == events
    store.close()


def test_a_refused_snapshot_is_recorded_with_worker_generation_and_reason(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    log = EventLog(store)
    handler(log).take(BAD)
    (event,) = log.since(0, 10)
    assert event.text == (
        "worker 1 rejected snapshot 1.2 and still uses the previous one: ValueError: no network"
    )
    store.close()
