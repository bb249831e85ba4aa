"""Conditions that last: when one begins and when it has ended. Pure.

`meshd.notify.watch` collects the conditions that hold now, and records an event for each change.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from meshd.model.event import Kind
from meshd.model.runtime import Node
from meshd.notify.burn import Burn

NO_ENDPOINT: Final = 30.0
"""Seconds without a ready replica until it is a problem: starts and restarts take a few."""
NODE_SILENT: Final = 15.0
"""Seconds that a node may not answer: three readings."""
FULL: Final = 0.90
"""Share of a disk in use from which it is a problem."""
FREE: Final = 0.85
"""Share below which the problem has ended; the gap keeps a disk near the limit from reporting again
and again."""
ENDS: Final[Mapping[Kind, Kind]] = {
    Kind.OBJECTIVE_BURNING: Kind.OBJECTIVE_MET,
    Kind.SERVICE_UNAVAILABLE: Kind.SERVICE_AVAILABLE,
    Kind.DISK_FILLING: Kind.DISK_FREE,
    Kind.NODE_LOST: Kind.NODE_BACK,
}
"""The kind of event that ends a condition, by the kind that begins it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A problem that holds now.

    - `kind`: of the event that begins it; `subject`: the service, node or disk.
    - `hold`: seconds that it must last before it counts.
    - `text`, `end_text`: for the events that begin and end it.
    """

    kind: Kind
    subject: str
    text: str
    end_text: str
    hold: float = 0.0
    project: str = ""
    service: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A condition that has begun, or ended: the event to record."""

    kind: Kind
    condition: Condition
    text: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: the paths on it that meshd cares about, and its size in bytes."""

    path: str
    total: int
    used: int

    @property
    def share(self) -> float:
        """Share in use."""
        return self.used / self.total if self.total else 0.0


class ConditionTracker:
    """Knows which conditions hold, and for how long."""

    def __init__(self) -> None:
        self._since: dict[tuple[Kind, str], float] = {}
        self._begun: dict[tuple[Kind, str], Condition] = {}

    def holds(self, kind: Kind, subject: str) -> bool:
        """Whether the begin of a condition was reported, and not its end."""
        return (kind, subject) in self._begun

    def step(
        self, current: Iterable[Condition], now: float, gone: Collection[str] = ()
    ) -> Sequence[Change]:
        """Return what began and ended. Conditions of `gone` subjects, which do not exist any more,
        end without an event."""
        found = {(each.kind, each.subject): each for each in current}
        for key in [key for key in self._begun if key[1] in gone]:
            del self._begun[key]
        self._since = {key: min(self._since.get(key, inf), now) for key in found}
        changes = []
        for key, condition in found.items():
            if key not in self._begun and now - self._since[key] >= condition.hold:
                self._begun[key] = condition
                changes.append(Change(condition.kind, condition, condition.text))
        for key in [key for key in self._begun if key not in found]:
            condition = self._begun.pop(key)
            changes.append(Change(ENDS[condition.kind], condition, condition.end_text))
        return changes


def burning(project: str, service: str, burn: Burn, latency: float | None) -> Condition:
    """Return the condition of a service that uses up its error budget too fast."""
    limit = "an answer without an error" if latency is None else f"an answer within {latency:g} s"
    window = "hour" if burn.rule.long == 3600 else f"{burn.rule.long // 3600} hours"
    return Condition(
        Kind.OBJECTIVE_BURNING,
        f"{project}/{service}",
        f"{burn.ratio:.1%} of the requests of the last {window} missed the objective: {limit} for "
        f"{1 - burn.budget:.2%}",
        "the objective is met again",
        project=project,
        service=service,
        numbers={"missed": burn.ratio, "allowed": burn.budget},
    )


def unavailable(project: str, service: str, desired: int) -> Condition:
    """Return the condition of a service without a ready replica."""
    return Condition(
        Kind.SERVICE_UNAVAILABLE,
        f"{project}/{service}",
        f"no replica has been ready for {NO_ENDPOINT:g} s; desired: {desired}",
        "a replica is ready again",
        hold=NO_ENDPOINT,
        project=project,
        service=service,
        numbers={"desired": desired},
    )


def lost_nodes(nodes: Iterable[Node]) -> list[Condition]:
    """Return a condition for each node that does not answer."""
    return [
        Condition(
            Kind.NODE_LOST,
            node.name,
            f"node {node.name} does not answer: {node.state}",
            f"node {node.name} answers again",
            hold=NODE_SILENT,
        )
        for node in nodes
        if node.state != "ready"
    ]


def filling_disks(disks: Iterable[Disk], tracker: ConditionTracker) -> list[Condition]:
    """Return a condition for each disk that is nearly full, or was and still is rather full."""
    found = []
    for disk in disks:
        limit = FREE if tracker.holds(Kind.DISK_FILLING, disk.path) else FULL
        if disk.share >= limit:
            text = f"{disk.share:.0%} of the disk of {disk.path} is in use"
            end = f"the disk of {disk.path} has room again"
            numbers = {"share": disk.share, "free": float(disk.total - disk.used)}
            found.append(Condition(Kind.DISK_FILLING, disk.path, text, end, numbers=numbers))
    return found
