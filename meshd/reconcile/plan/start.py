"""Whether what is missing can be started now, under which names, and else what it waits for. Pure.

In this order it may have to wait: for the backoff of those that failed before it, for what it
depends on, for its image and networks, for others to have stopped what they stop, for the proxy.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.operation import Operation, Prepare, StartReplica, Urgency
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.progress import CRASH_LOOP_FAILURES

OTHERS_STOP: Final = 1.0
"""Seconds within which somebody who stops a whole application gets to all of its parts."""
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"


class ScaleUp(msgspec.Struct, frozen=True):
    """So many replicas more, and what they are for."""

    count: int
    cause: str
    urgency: Urgency = Urgency.SCALE


class ServicePlan(msgspec.Struct, frozen=True):
    """Steps of one service that are safe now, and what its next ones wait for; empty for
    nothing."""

    operations: tuple[Operation, ...] = ()
    waits: str = ""


def launch(
    service: DesiredService,
    group: Sequence[Replica],
    observed: Observed,
    now: float,
    dice: RandomSource,
    need: ScaleUp | None,
    blocker: str,
) -> ServicePlan:
    """Start what is needed, as far as that may be. `blocker` is what the service waits for."""
    if need is None:
        return ServicePlan()
    version = (service.key, service.revision)
    slots = observed.slots.get(version, ())
    due = sorted(slot.attempt for slot in slots if slot.not_before <= now)
    fresh = max(0, need.count - len(slots))
    if not due and not fresh:
        soonest = min(slot.not_before for slot in slots)
        worst = max(slot.attempt for slot in slots)
        word = "crash loop" if worst >= CRASH_LOOP_FAILURES else "backoff"
        return ServicePlan(
            waits=f"{word}: {worst} failures in a row, next start in {soonest - now:.1f} s"
        )
    if blocker:
        return ServicePlan(waits=blocker)
    if version not in observed.prepared and not service.adopted:
        ordered = version in observed.preparing
        return ServicePlan(() if ordered else (_prepare(service, need.cause),), "is being prepared")
    if service.adopted and _stopped_just_now(group, now):
        return ServicePlan(waits="waits to see whether others stop all of it")
    if not observed.may_start:
        return ServicePlan(waits="waits for the proxy to listen")
    attempts = [0] * fresh + due[: need.count - fresh]
    return ServicePlan(_starts(service, group, need, attempts, dice))


def _starts(
    service: DesiredService,
    group: Sequence[Replica],
    need: ScaleUp,
    attempts: Sequence[int],
    dice: RandomSource,
) -> tuple[StartReplica, ...]:
    again = Urgency.HEAL if need.urgency is Urgency.SCALE else need.urgency
    taken = {replica.name for replica in group}
    starts = []
    for attempt in attempts:
        name = _name(service, taken, dice)
        taken.add(name)
        starts.append(
            StartReplica(
                name=name,
                project=service.project,
                service=service.spec.name,
                revision=service.revision,
                clone_of=service.template or None,
                attempt=attempt,
                reserve=need.urgency is Urgency.RESERVE,
                urgency=again if attempt else need.urgency,
                cause=f"{need.cause}; attempt {attempt + 1}" if attempt else need.cause,
            )
        )
    return tuple(starts)


def _prepare(service: DesiredService, cause: str) -> Prepare:
    return Prepare(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        cause=cause,
    )


def _stopped_just_now(group: Sequence[Replica], now: float) -> bool:
    """Others, who own the service, stopped a part of it; perhaps the rest comes next."""
    return any(
        replica.phase in (Phase.STOPPING, Phase.GONE)
        and not replica.drain_since
        and replica.since + OTHERS_STOP > now
        for replica in group
    )


def _name(service: DesiredService, taken: set[str], dice: RandomSource) -> str:
    while True:
        number = int(dice.random() * len(_ALPHABET) ** 5)
        letters = ""
        for _ in range(5):
            number, digit = divmod(number, len(_ALPHABET))
            letters += _ALPHABET[digit]
        name = f"{service.project}-{service.spec.name}-{letters}"
        if name not in taken:
            return name
