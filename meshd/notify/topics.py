"""Which events are problems to notify of. Pure.

`meshd.notify.notifier` turns each event of the log into an alert with `alert_of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshd.model.event import Event, Kind
from meshd.spec.model.notify import Topic

FIRING: Final[Mapping[str, Topic]] = {
    Kind.OBJECTIVE_BURNING: "objective",
    Kind.SERVICE_UNAVAILABLE: "no-endpoint",
    Kind.REPLICA_CRASH_LOOP: "crash-loop",
    Kind.ROLLOUT_FAILED: "rollout",
    Kind.ROLLOUT_ROLLED_BACK: "rollout",
    Kind.CERTIFICATE_EXPIRING: "certificate",
    Kind.DISK_FILLING: "disk",
    Kind.STATE_LOST: "disk",
    Kind.NODE_LOST: "node",
    Kind.RUNTIME_LOST: "runtime",
}
"""Topic of each kind of event that is a problem."""
RESOLVED: Final[Mapping[str, Topic]] = {
    Kind.OBJECTIVE_MET: "objective",
    Kind.SERVICE_AVAILABLE: "no-endpoint",
    Kind.DISK_FREE: "disk",
    Kind.STATE_BACK: "disk",
    Kind.NODE_BACK: "node",
    Kind.RUNTIME_BACK: "runtime",
}
"""Topic of each kind of event that ends a problem."""
_STATE: Final = "state"
"""Subject of the state directory, which is not a disk that the watch found."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A problem that began or ended, at `at` (Unix time). `subject` is what has it, for grouping:
    a service, a node, a disk."""

    topic: Topic
    subject: str
    firing: bool
    at: float
    text: str
    project: str = ""
    service: str = ""
    replica: str = ""


def alert_of(event: Event) -> Alert | None:
    """Return the problem that an event begins or ends; None for other events."""
    topic = FIRING.get(event.kind) or RESOLVED.get(event.kind)
    if topic is None:
        return None
    if event.kind in (Kind.STATE_LOST, Kind.STATE_BACK):
        subject = _STATE
    elif event.service:
        subject = f"{event.project}/{event.service}"
    else:
        subject = event.replica or (event.text if topic == "certificate" else "")
    return Alert(
        topic=topic,
        subject=subject,
        firing=event.kind in FIRING,
        at=event.at,
        text=event.text,
        project=event.project,
        service=event.service,
        replica=event.replica if event.service else "",
    )
