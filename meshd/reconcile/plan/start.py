"""Start missing replicas, or say what the start waits for. Pure.

Called by `meshd.reconcile.plan.service`. A start waits, in this order, for: the backoff after
failures, dependencies, image and networks, others that may be stopping the application, the proxy,
and, with `stop-first`, for the end of the replica whose place it takes.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.operation import Operation, PrepareRevision, StartReplica, Urgency
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import ENDED, Phase
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan.removal import may_be_restarted
from meshd.reconcile.progress import CRASH_LOOP_FAILURES

OTHERS_STOP: Final = 1.0
"""Seconds in which a tool that stops a whole application stops all of its containers."""
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Characters of names, without those that are easily confused (l, o, 0, 1)."""
_NAME_LENGTH: Final = 5
"""Random characters of a name: 32^5, about 33 million names for each service."""


class ScaleUp(msgspec.Struct, frozen=True):
    """A number of missing replicas, and why they are started.

    - `attempt`: quick replacements in a row before them.
    - `healing`: how many of them make up for failed ones, whatever the `urgency` of the others.
    """

    count: int
    cause: str
    urgency: Urgency = Urgency.SCALE
    attempt: int = 0
    healing: int = 0


class ServicePlan(msgspec.Struct, frozen=True):
    """Steps of one service that are safe now.

    - `waiting_for`: what its next steps wait for; empty: nothing.
    """

    operations: tuple[Operation, ...] = ()
    waiting_for: str = ""


def plan_starts(
    service: DesiredService,
    group: Sequence[Replica],
    observed: Observed,
    now: float,
    random: RandomSource,
    missing: ScaleUp | None,
    blocker: str,
) -> ServicePlan:
    """Start the missing replicas if that is possible now.

    `blocker` is what the service waits for; empty: nothing.
    """
    if missing is None:
        return ServicePlan()
    version = (service.key, service.revision)
    slots = observed.slots.get(version, ())
    due = sorted(slot.attempt for slot in slots if slot.not_before <= now)
    fresh = max(0, missing.count - len(slots))
    if not due and not fresh:
        soonest = min(slot.not_before for slot in slots)
        worst = max(slot.attempt for slot in slots)
        word = "crash loop" if worst >= CRASH_LOOP_FAILURES else "backoff"
        return ServicePlan(
            waiting_for=f"{word}: {worst} failures in a row, next start in {soonest - now:.1f} s"
        )
    if blocker:
        return ServicePlan(waiting_for=blocker)
    if version not in observed.prepared and not service.adopted:
        preparing = version in observed.preparing
        return ServicePlan(
            () if preparing else (_prepare(service, missing.cause),), "is being prepared"
        )
    if service.adopted and _was_just_stopped(group, now):
        return ServicePlan(waiting_for="waits to see whether others stop all of it")
    restarted = next((r.name for r in group if may_be_restarted(service, r, now)), "")
    if restarted:
        return ServicePlan(waiting_for=f"waits to see whether others start {restarted} again")
    if not observed.may_start and not service.spec.plain:
        return ServicePlan(waiting_for="waits for the proxy to listen")
    if service.spec.plain and service.key in observed.moving_ports:
        return ServicePlan(waiting_for="waits until the mesh has released its port of the host")
    attempts = [missing.attempt] * fresh + due[: missing.count - fresh]
    places, leaving = _free_places(service, group)
    if places is not None and places < len(attempts):
        starts = _starts(service, group, missing, attempts[:places], random)
        return ServicePlan(starts, f"waits until {leaving} has ended" if leaving else "")
    return ServicePlan(_starts(service, group, missing, attempts, random))


def _free_places(service: DesiredService, group: Sequence[Replica]) -> tuple[int | None, str]:
    """The number of containers that may be started in addition to those that have not ended (None:
    no limit), and a replica that takes up a place until it has ended; empty: none."""
    if service.max_containers is None:
        return None, ""
    running = [r for r in group if r.phase not in ENDED or _may_still_start(r)]
    leaving = [r.name for r in running if r.phase in (Phase.DRAINING, Phase.STOPPING)]
    names = leaving or [replica.name for replica in running]
    return max(0, service.max_containers - len(running)), names[0] if names else ""


def _may_still_start(replica: Replica) -> bool:
    """Whether it was created but not started: the order may still be on its way to the engine."""
    return replica.phase is Phase.FAILED and replica.listed and replica.exit_code is None


def _starts(
    service: DesiredService,
    group: Sequence[Replica],
    missing: ScaleUp,
    attempts: Sequence[int],
    random: RandomSource,
) -> tuple[StartReplica, ...]:
    """One start for each of `attempts` (quick failures in a row before it)."""
    urgency = missing.urgency
    after_failure = Urgency.HEAL if urgency is Urgency.SCALE else urgency
    taken = {replica.name for replica in group}
    starts = []
    for number, attempt in enumerate(attempts):
        heals = number < missing.healing
        name = _choose_name(service, taken, random)
        taken.add(name)
        starts.append(
            StartReplica(
                name=name,
                project=service.project,
                service=service.spec.name,
                revision=service.revision,
                clone_of=service.template or None,
                attempt=attempt,
                warm=urgency is Urgency.WARM,
                urgency=Urgency.HEAL if heals else after_failure if attempt else urgency,
                cause=f"{missing.cause}; attempt {attempt + 1}" if attempt else missing.cause,
            )
        )
    return tuple(starts)


def _prepare(service: DesiredService, cause: str) -> PrepareRevision:
    return PrepareRevision(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        cause=cause,
    )


def _was_just_stopped(group: Sequence[Replica], now: float) -> bool:
    """Whether others stopped a replica just now; they may be stopping the rest as well."""
    return any(
        replica.phase in (Phase.STOPPING, Phase.GONE)
        and not replica.drain_since
        and replica.since + OTHERS_STOP > now
        for replica in group
    )


def _choose_name(service: DesiredService, taken: set[str], random: RandomSource) -> str:
    """A random name that is not taken."""
    while True:
        number = int(random.random() * len(_ALPHABET) ** _NAME_LENGTH)
        letters = ""
        for _ in range(_NAME_LENGTH):
            number, digit = divmod(number, len(_ALPHABET))
            letters += _ALPHABET[digit]
        name = f"{service.project}-{service.spec.name}-{letters}"
        if name not in taken:
            return name
