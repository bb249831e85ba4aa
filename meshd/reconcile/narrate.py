"""What happened between two passes, in words: the events that phases' changes make. Pure."""

from collections.abc import Container, Iterator, Mapping

import msgspec

from meshd.reconcile.memory import Memory, Record, Replica, Version
from meshd.reconcile.observed import ending
from meshd.reconcile.phase import ALIVE, Phase
from meshd.reconcile.progress import PATIENCE
from meshd.telemetry.events import Kind


class Happening(msgspec.Struct, frozen=True):
    """One thing worth an event. `seconds` is how long a replica took to get ready."""

    kind: str
    replica: Replica
    text: str
    seconds: float | None = None


def happenings(
    before: Mapping[str, Record], replicas: tuple[Replica, ...], now: float
) -> Iterator[Happening]:
    """One a replica at most whose phase changed since `before`."""
    for replica in replicas:
        old = before.get(replica.name)
        if old is not None and old.phase is replica.phase:
            continue
        told = _tell(replica, old, now)
        if told is not None:
            yield told


def turned(before: Memory, replicas: tuple[Replica, ...]) -> Iterator[Happening]:
    """Those whose readiness probe takes them out, or brings them back."""
    for replica in replicas:
        sight = before.sights.get(replica.name)
        if sight is None or sight.replica is replica or replica.phase is not Phase.READY:
            continue
        if replica.unready and not sight.replica.unready:
            text = f"wants no requests for now: {replica.unready}"
            yield Happening(Kind.REPLICA_UNREADY, replica, text)
        elif sight.replica.unready and not replica.unready:
            yield Happening(Kind.REPLICA_READY, replica, "wants requests again")


def looping(before: Memory, after: Memory) -> Iterator[tuple[Version, str]]:
    """The versions whose replicas fail again and again, each told when that begins."""
    for version, slots in after.slots.items():
        known = before.slots.get(version, ())
        if slots is known:
            continue
        worst = max(slot.attempt for slot in slots)
        if worst == PATIENCE and worst not in [slot.attempt for slot in known]:
            last = after.failures[version][-1].text
            yield version, f"{worst} quick failures in a row, starts ever less often; last: {last}"


def vanished(before: Memory, runs: Container[str]) -> Iterator[Happening]:
    """Those that were there, were not leaving, and are not among what `runs` any more: nobody
    saw them end."""
    for name, sight in before.sights.items():
        was = sight.record
        stays = sight.replica.managed and was.phase in ALIVE and not was.drain_since
        if stays and name not in runs:
            text = "is there no more: it was removed, and not by the mesh"
            yield Happening(Kind.REPLICA_DIED, sight.replica, text)


def _tell(replica: Replica, old: Record | None, now: float) -> Happening | None:
    end = ending(replica.exit_code, replica.oom_killed)
    match replica.phase:
        case Phase.PENDING:
            return Happening(Kind.REPLICA_STARTED, replica, replica.cause or "started")
        case Phase.READY:
            if old is None and replica.ready_since != now:
                return None
            began = replica.woken or replica.created_at
            took = now - began if began else None
            text = "answers its probe" + (f" after {took:.1f} s" if took is not None else "")
            if replica.woken:
                text = f"was woken and {text}"
            return Happening(Kind.REPLICA_READY, replica, text, took)
        case Phase.PAUSED if replica.reserve and old is not None:
            return Happening(Kind.REPLICA_PAUSED, replica, "is ready, and kept for later")
        case Phase.DRAINING:
            kind = Kind.REPLICA_UNHEALTHY if replica.blamed else Kind.REPLICA_DRAINING
            return Happening(kind, replica, replica.cause)
        case Phase.STOPPING if not (old and old.drain_since) and not replica.busy:
            return Happening(
                Kind.REPLICA_DRAINING, replica, "was told to stop, not by the mesh; out of rotation"
            )
        case Phase.FAILED:
            return Happening(Kind.REPLICA_DIED, replica, end)
        case Phase.GONE if old is not None:
            return Happening(Kind.REPLICA_STOPPED, replica, replica.cause or end)
        case _:
            return None
