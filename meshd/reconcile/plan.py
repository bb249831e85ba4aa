"""The plan: from what is wanted and what is seen to the steps that are safe now. Pure.

Every pass plans anew from what is there, so a step that was lost with a crash is simply
planned again. A replica always leaves by the same road: drained (out of rotation), stopped
once nobody uses it or its deadline passed, removed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.reconcile import hooks, pool, rollout, starts
from meshd.reconcile.desired import Desired, DesiredService
from meshd.reconcile.gate import NOT_YET
from meshd.reconcile.hooks import HookState
from meshd.reconcile.memory import NO_ANSWER, Dice, Replica
from meshd.reconcile.observed import Observed
from meshd.reconcile.operation import (
    Drain,
    Forget,
    Hook,
    Operation,
    Plan,
    Prepare,
    Remove,
    Restore,
    Settle,
    Start,
    Stop,
    Urgency,
)
from meshd.reconcile.phase import ALIVE, ENDED, Phase
from meshd.reconcile.strategy import current, switched, unwatched
from meshd.runtime.base import ContainerHealth
from meshd.spec.model import Service

_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
OTHERS_STOP: Final = 1.0
"""Seconds within which somebody who stops a whole application gets to all of its parts."""
OTHERS_REMOVE: Final = 15.0
HANGING: Final = 2.0
"""Seconds that a replica which answers no probe has for what it was asked before: most likely it
will answer none of that either, and once it is ended, what may be asked again is."""
_UNKNOWN: Final = Service(name="unknown")


def plan(desired: Desired, observed: Observed, now: float, dice: Dice) -> Plan:
    """The steps that are safe now. While the runtime does not answer: only drains."""
    groups: dict[str, list[Replica]] = {}
    for replica in observed.replicas:
        groups.setdefault(replica.key, []).append(replica)
    wanted = {service.key: service.count for service in desired.services}
    operations: list[Operation] = []
    waiting: list[tuple[str, str]] = []
    for service in desired.services:
        group = groups.get(service.key, ())
        if _at_rest(service, group):
            continue
        blocker = _blocker(service, wanted, groups)
        planner = _ServicePlan(service, group, observed, now, dice)
        planner.run(blocker)
        operations += planner.operations
        if planner.waits:
            waiting.append((service.key, planner.waits))
    for key, group in groups.items():
        project = group[0].project
        if key not in wanted and (project in desired.projects or project in desired.leaving):
            down = project in desired.leaving
            cause = "the project goes down" if down else "the spec has no such service any more"
            operations += _leave(group, cause, now)
    for project in sorted(desired.leaving - observed.working):
        if not any(r.project == project and r.managed for r in observed.replicas):
            operations.append(Forget(project=project, cause="no replica is left"))
    operations, held = starts.admit(operations, observed.replicas, wanted, observed.places, now)
    told = {key for key, _ in waiting}
    waiting += [
        (key, f"{count} more to start; {observed.places} may do so at once on the nodes")
        for key, count in held.items()
        if key not in told
    ]
    if not observed.available:
        operations = [op for op in operations if isinstance(op, Drain)]
        waiting = [(service.key, "the runtime does not answer") for service in desired.services]
    return Plan(operations=tuple(operations), waiting=tuple(waiting))


def _at_rest(service: DesiredService, group: Sequence[Replica]) -> bool:
    """Whether one look at each replica tells that there is nothing to do: of a thousand services
    all but a few are so at any time."""
    if service.rollout != "done" or service.warm or len(group) != service.count:
        return False
    revision = service.revision
    for replica in group:
        if (
            replica.phase is not Phase.READY
            or replica.revision != revision
            or replica.bad
            or replica.health is ContainerHealth.UNHEALTHY
            or replica.busy
            or replica.reserve
            or replica.frozen
            or replica.drift
            or not replica.managed
        ):
            return False
    return True


def _blocker(
    service: DesiredService,
    wanted: Mapping[str, int],
    groups: Mapping[str, Sequence[Replica]],
) -> str:
    """What the service has to wait for before its first start; empty when nothing."""
    for name in service.spec.depends_on:
        key = f"{service.project}/{name}"
        phases = {replica.phase for replica in groups.get(key, ())}
        if wanted.get(key, 0) == 0 or Phase.READY in phases:
            continue
        if name in service.spec.wait_healthy:
            return f"waits for {name}, which has no ready replica yet"
        if not phases & {Phase.STARTING, Phase.PROBING}:
            return f"waits for {name}, which has not been started yet"
    return ""


def _leave(group: Sequence[Replica], cause: str, now: float) -> list[Operation]:
    """Everything of ours in `group` goes."""
    operations: list[Operation] = []
    for replica in group:
        if not replica.managed or replica.busy or _left_to_others(replica, now):
            continue
        if replica.phase in ENDED:
            operations.append(Remove(name=replica.name, cause=cause))
        elif replica.phase in ALIVE or replica.phase is Phase.PAUSED:
            operations.append(Drain(name=replica.name, cause=cause))
        else:
            operations += _stop(replica, _UNKNOWN, now)
    return operations


def _left_to_others(replica: Replica, now: float) -> bool:
    """A copy that others stopped is theirs to remove first: whoever takes a whole application
    down counts on finding it."""
    ended = replica.phase in ENDED and not replica.drain_since
    return replica.copied and ended and replica.since + OTHERS_REMOVE > now


def _stop(replica: Replica, spec: Service, now: float) -> list[Operation]:
    """Stop a leaving replica when that is safe; nothing while it is not."""
    if replica.busy or not replica.managed:
        return []
    why = replica.cause
    if replica.phase is Phase.STOPPING:
        if now < replica.since + spec.stop_grace_period:
            return []
        why = f"was told to stop {now - replica.since:.0f} s ago and still runs"
    elif not replica.drained:
        hangs = replica.blamed and NO_ANSWER in replica.cause
        patience = min(spec.mesh.drain, HANGING) if hangs else spec.mesh.drain
        if now < replica.drain_since + patience:
            return []
        why = f"{why}; drain deadline of {patience:g} s passed"
    return [Stop(name=replica.name, grace=spec.stop_grace_period, cause=why)]


class _ServicePlan:
    """One service's part of the plan, built top to bottom by `run`."""

    def __init__(
        self,
        service: DesiredService,
        group: Sequence[Replica],
        observed: Observed,
        now: float,
        dice: Dice,
    ) -> None:
        self.service = unwatched(service) if observed.verdicts is None else service
        self.group = [r for r in group if r.managed or service.adopted]
        self.observed = observed
        self.now = now
        self.dice = dice
        self.operations: list[Operation] = []
        self.pool: list[Replica] = []
        self.waits = ""

    def run(self, blocker: str) -> None:
        """Clear what ended, take out the sick, stop the drained, then bring to size."""
        self._clear()
        sick = self._sick()
        self.pool = pool.reserves(self.group, sick)
        alive = [
            r
            for r in self.group
            if (r.phase in ALIVE or r.phase is Phase.PAUSED)
            and not r.reserve
            and r.name not in sick
        ]
        self.operations += pool.wake_again(alive)
        self.operations += pool.thaw(self.group)
        for replica in self.group:
            if replica.phase in (Phase.DRAINING, Phase.STOPPING):
                self._finish(replica)
        if self.service.adopted or self.service.rollout == "paused":
            new, old = alive, []
        else:
            new = [r for r in alive if self._right(r)]
            old = [r for r in alive if not self._right(r)]
        if not self.service.adopted:
            version = (self.service.key, self.service.revision)
            failures = self.observed.failures.get(version, ())
            told = self.observed.verdicts
            traffic = None if told is None else told.get(self.service.key, NOT_YET)
            if self._held_before():
                return
            settled = rollout.judge(self.service, new, old, failures, self.now, traffic)
            settled = self._after(settled)
            if settled:
                self.operations.append(settled)
                if settled.outcome != "done":
                    return
            self._run_once(hooks.on_failure(self.service, self.now))
            over = rollout.advance(self.service, new, old, traffic, self.now)
            if over:
                self.operations.append(over)
        if old and not switched(self.service):
            self._roll(new, old, blocker)
        else:
            self._resize(new, blocker)
            self._tend_pool(blocker)

    def _right(self, replica: Replica) -> bool:
        """Whether it is what is wanted, as far as anybody knows."""
        return replica.revision == self.service.revision and not replica.drift

    def _run_once(self, hook: Hook | None) -> HookState | None:
        """How a hook stands; one that was never run is run. None where there is none."""
        told = self.observed.hooks
        if hook is None or told is None:
            return None
        state = told.get(hook.id)
        if state is None:
            self.operations.append(hook)
        return state or HookState(over=False, text=f"{hook.id} is to run")

    def _held_before(self) -> bool:
        """Whether nothing of the new revision may be started yet, or ever."""
        state = self._run_once(hooks.before(self.service))
        if state is None or state.ok:
            return False
        if not state.over:
            self.waits = state.text
        elif self.service.rollout == "rolling":
            self.operations.append(rollout.failed(self.service, state.text))
        return True

    def _after(self, settled: Settle | None) -> Settle | None:
        """The end of a rollout, once the hook that has a say in it said so."""
        if settled is None or settled.outcome != "done":
            return settled
        state = self._run_once(hooks.after(self.service))
        if state is None or state.ok:
            return settled
        if not state.over:
            self.waits = state.text
            return None
        if self.service.spec.update.failure_action == "continue":
            return msgspec.structs.replace(settled, cause=f"{settled.cause}, though {state.text}")
        return rollout.failed(self.service, state.text)

    def _clear(self) -> None:
        for replica in self.group:
            if replica.phase not in ENDED or replica.busy or not replica.managed:
                continue
            if self._completed(replica) or _left_to_others(replica, self.now):
                continue
            failed = replica.phase is Phase.FAILED
            cause = "it ended by itself" if failed else replica.cause or "it was stopped"
            self.operations.append(Remove(name=replica.name, failed=failed, cause=cause))

    def _completed(self, replica: Replica) -> bool:
        """It ended and its restart policy wants it left so."""
        condition = self.service.spec.restart.condition
        if condition == "any" or replica.phase is not Phase.FAILED or replica.exit_code is None:
            return False
        return replica.revision == self.service.revision and (
            condition == "none" or replica.exit_code == 0
        )

    def _sick(self) -> set[str]:
        """Take out what never got healthy or is healthy no more.

        Of ready ones at most half of the wanted count may be out at a time: where all fail at
        once, more likely something else is the matter, and restarting all would end it all.
        """
        health = self.service.spec.mesh.health
        sick: set[str] = set()
        ready = sum(r.serves for r in self.group)
        spare = ready - self.service.count + max(1, self.service.count // 2)
        for replica in self.group:
            waking = replica.phase is Phase.PAUSED and not replica.reserve
            coming = waking or replica.phase in (Phase.STARTING, Phase.PROBING)
            if coming and not replica.busy:
                since = max(replica.since, replica.woken)
                if self.now >= since + health.start_timeout and replica.managed:
                    cause = f"not healthy within {health.start_timeout:g} s ({replica.probe})"
                    self._drain(replica, cause, sick, blame=True)
            elif replica.phase is Phase.READY and spare > 0:
                cause = ""
                if replica.bad >= health.failures:
                    cause = f"{replica.bad} bad probes in a row ({replica.probe})"
                elif replica.health is ContainerHealth.UNHEALTHY:
                    cause = "its container's health check fails"
                if cause:
                    spare -= 1
                    self._drain(replica, cause, sick, blame=True)
        return sick

    def _drain(
        self, replica: Replica, cause: str, into: set[str] | None = None, blame: bool = False
    ) -> None:
        self.operations.append(Drain(name=replica.name, cause=cause, blame=blame))
        if into is not None:
            into.add(replica.name)

    def _finish(self, replica: Replica) -> None:
        if replica.managed:
            self.operations += _stop(replica, self.service.spec, self.now)
        elif replica.phase is Phase.DRAINING and not replica.bad and replica.probe:
            healthy = replica.health in (ContainerHealth.NONE, ContainerHealth.HEALTHY)
            if healthy and replica.blamed:
                self.operations.append(Restore(name=replica.name, cause="it answers again"))

    def _roll(self, new: Sequence[Replica], old: Sequence[Replica], blocker: str) -> None:
        """One step of replacing `old` by `new`. Old ones that serve nothing go at once."""
        leaving = sum(r.phase in (Phase.DRAINING, Phase.STOPPING) for r in self.group)
        step = rollout.step(self.service, new, old, leaving, self.now)
        cause = f"replaced by revision {self.service.revision[:12]}"
        idle = [r for r in old if r.phase is not Phase.READY and not r.busy]
        idle += self._unready(new, old)
        for replica in idle:
            self._drain(replica, replica.drift or cause)
        ready = (r for r in old if r.phase is Phase.READY and r not in idle)
        serving = sorted(ready, key=_leaves_first)
        # What is neither the new revision nor the one to go back to serves nobody meanwhile.
        stale = [r for r in serving if r.revision != self.service.previous]
        spare = len(serving) - len(stale) >= self.service.count
        count = max(step.drain, len(stale) if spare else 0)
        for replica in (*stale, *(r for r in serving if r not in stale))[:count]:
            self._drain(replica, replica.drift or cause)
        surplus = len(new) - self.service.count
        if surplus > 0:
            self._shrink(new, surplus)
        if step.start:
            stage = current(self.service)
            cause = f"rollout of revision {self.service.revision[:12]}"
            cause += f", {stage}" if stage is not None else ""
            drifted = next((r for r in old if r.drift), None)
            if drifted is not None:
                cause = f"in place of {drifted.name}, which {drifted.drift}"
            self._start(step.start, cause, blocker, Urgency.ROLLOUT)

    def _unready(self, new: Sequence[Replica], old: Sequence[Replica]) -> list[Replica]:
        """The old ones that want no requests and can be spared should they all want some again."""
        in_place = [r for r in old if r.phase is Phase.READY]
        spare = sum(r.serves for r in new) + len(in_place) - self.service.count
        return [r for r in in_place if r.unready][: max(0, spare)]

    def _resize(self, current: Sequence[Replica], blocker: str) -> None:
        want = self.service.count
        done = sum(self._completed(r) for r in self.group)
        missing = want - len(current) - done
        if missing < 0 and self.service.by_hand:
            return  # a rollout that was paused by hand is left as it is
        if missing > 0:
            if not current and blocker:
                self.waits = blocker
                return
            cause = f"{want} wanted, {len(current)} there"
            woken = pool.wake(self.pool, self.service.revision, missing, cause)
            self.operations += woken
            awake = {step.subject for step in woken}
            self.pool = [r for r in self.pool if r.name not in awake]
            missing -= len(woken)
        if missing > 0:
            self._start(missing, f"{want} wanted, {len(current)} there", "")
        elif missing < 0:
            self._shrink(current, -missing)

    def _shrink(self, current: Sequence[Replica], surplus: int) -> None:
        """Drain the idlest; those that serve nothing yet first. Adopted ones stay. One that is
        only being started leaves as soon as that is done, and nobody in its place."""
        candidates = sorted((r for r in current if r.managed), key=_leaves_first)
        cause = f"{self.service.count} wanted, {len(current)} there"
        for replica in candidates[:surplus]:
            if not replica.busy:
                self._drain(replica, cause)

    def _tend_pool(self, blocker: str) -> None:
        """Keep as many for later as are wanted; what is missing now comes first."""
        waits = self.waits
        steps, missing = pool.tend(self.pool, self.service.revision, self.service.warm)
        self.operations += steps
        starting = any(isinstance(step, Start) for step in self.operations)
        if missing and not waits and not starting and not self.service.adopted:
            cause = f"{self.service.warm} wanted in the warm pool"
            self._start(missing, cause, blocker, Urgency.RESERVE)
        self.waits = waits

    def _start(
        self, missing: int, cause: str, blocker: str, urgency: Urgency = Urgency.SCALE
    ) -> None:
        service = self.service
        version = (service.key, service.revision)
        slots = self.observed.slots.get(version, ())
        due = sorted(slot.attempt for slot in slots if slot.not_before <= self.now)
        fresh = max(0, missing - len(slots))
        if not due and not fresh:
            soonest = min(slot.not_before for slot in slots)
            worst = max(slot.attempt for slot in slots)
            word = "crash loop" if worst >= 3 else "backoff"
            self.waits = (
                f"{word}: {worst} failures in a row, next start in {soonest - self.now:.1f} s"
            )
            return
        if blocker:
            self.waits = blocker
            return
        if version not in self.observed.prepared and not service.adopted:
            self.waits = "is being prepared"
            if version not in self.observed.preparing:
                self.operations.append(
                    Prepare(
                        project=service.project,
                        service=service.spec.name,
                        revision=service.revision,
                        cause=cause,
                    )
                )
            return
        if service.adopted and self._stopped_just_now():
            self.waits = "waits to see whether others stop all of it"
            return
        if not self.observed.may_start:
            self.waits = "waits for the proxy to listen"
            return
        attempts = [0] * fresh + due[: missing - fresh]
        again = Urgency.HEAL if urgency is Urgency.SCALE else urgency
        taken = {replica.name for replica in self.group}
        for attempt in attempts:
            name = self._name(taken)
            taken.add(name)
            self.operations.append(
                Start(
                    name=name,
                    project=service.project,
                    service=service.spec.name,
                    revision=service.revision,
                    clone_of=service.template or None,
                    attempt=attempt,
                    reserve=urgency is Urgency.RESERVE,
                    urgency=again if attempt else urgency,
                    cause=cause if not attempt else f"{cause}; attempt {attempt + 1}",
                )
            )

    def _stopped_just_now(self) -> bool:
        """Others, who own the service, stopped a part of it; perhaps the rest comes next."""
        return any(
            replica.phase in (Phase.STOPPING, Phase.GONE)
            and not replica.drain_since
            and replica.since + OTHERS_STOP > self.now
            for replica in self.group
        )

    def _name(self, taken: set[str]) -> str:
        while True:
            number = int(self.dice.random() * len(_ALPHABET) ** 5)
            letters = ""
            for _ in range(5):
                number, digit = divmod(number, len(_ALPHABET))
                letters += _ALPHABET[digit]
            name = f"{self.service.project}-{self.service.spec.name}-{letters}"
            if name not in taken:
                return name


def _leaves_first(replica: Replica) -> tuple[bool, int, float]:
    """Order of leaving: those that serve last, fewest in flight, youngest."""
    return (replica.serves, replica.in_flight, -replica.created_at)
