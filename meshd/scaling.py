"""From reports to the number of replicas: signal → autoscaler → store, once a second.

The only module besides the simulator that knows the autoscaler. It writes one number a
service, and nothing while there is no data.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

import autoscaler
from autoscaler import Decision, Settings, Signal, State
from meshd.reconcile.desired import DesiredService
from meshd.reconcile.memory import Replica
from meshd.reconcile.phase import Phase
from meshd.spec.model import Scale
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.telemetry.events import Kind
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.merge import MergedService
from meshd.telemetry.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)
INTERVAL: Final = 1.0
KEEP_EVERY: Final = 30.0
_STARTING: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


def settings_of(scale: Scale) -> Settings:
    """What the spec asks of the autoscaler."""
    objective = scale.objective
    return Settings(
        min=scale.min,
        max=scale.max,
        latency=objective.latency if objective else None,
        share=objective.share if objective else 95.0,
        concurrency=scale.concurrency,
        rps=scale.rps,
        down_window=scale.down_window,
    )


def is_scaled(service: DesiredService) -> bool:
    """Whether the autoscaler has a say: there is room, and something to aim at."""
    scale = service.spec.mesh.scale
    if scale is None or scale.max <= scale.min:
        return False
    return bool(scale.objective or scale.concurrency or scale.rps)


def signal_of(
    service: DesiredService,
    replicas: Sequence[Replica],
    second: MergedService | None,
    ejected: int,
    since: float,
) -> Signal | None:
    """One second of a service; None when nothing is known. Replicas that a rollout adds for
    a while are not counted, and those that got ready after `since` tell their start-up."""
    if second is None or not second.interval:
        return None
    current = [r for r in replicas if service.adopted or r.revision == service.revision]
    rolling = service.rollout == "rolling" and len(current) != len(replicas)
    ready = sum(r.phase is Phase.READY for r in replicas)
    total = second.total
    return Signal(
        interval=second.interval,
        arrivals=second.arrivals,
        completions=second.completions,
        in_flight=second.in_flight,
        latency=total.upper_bounds(),
        latency_sum=total.sum,
        queue_sum=second.queue.sum,
        errors=second.errors,
        shed=second.shed,
        parked=second.parked,
        ready=min(ready, service.count) if rolling else ready,
        starting=0 if rolling else sum(r.phase in _STARTING for r in replicas),
        draining=sum(r.phase is Phase.DRAINING for r in replicas),
        ejected=ejected,
        startups=tuple(
            r.ready_since - r.created_at for r in replicas if r.ready_since > since and r.created_at
        ),
        busy=rolling,
    )


class Scaling:
    """Steps every scaled service's policy, and keeps what it learned in the store."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        ingest: Ingest,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self.decisions: dict[str, Decision] = {}
        self._store = store
        self._events = events
        self._ingest = ingest
        self._metrics = metrics
        self._wake = wake
        self._states: dict[str, State] = {}
        self._kept: dict[str, float] = {}
        self._last = 0.0

    def step(
        self,
        services: Sequence[DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> None:
        """One decision for every scaled service; the changed ones are stored at once."""
        seconds = self._ingest.second(now)
        changed: dict[str, tuple[int, object]] = {}
        scaled = [service for service in services if is_scaled(service)]
        for service in scaled:
            key = service.key
            ejected = sum(e.ejected_by > 0 for e in self._ingest.endpoints(key, now).values())
            group = replicas.get(key, ())
            signal = signal_of(service, group, seconds.get(key), ejected, self._last)
            decision, state = self._decide(service, signal, now)
            before = self._store.scaling.get(key)
            old = before.desired if before else None
            if old != decision.desired or self._kept.get(key, 0.0) + KEEP_EVERY < now:
                changed[key] = (decision.desired, autoscaler.dump(state))
                self._kept[key] = now
            self._tell(service, old, decision, now)
        if changed:
            self._store.set_scaling(changed, now)
            self._wake()
        known = {service.key for service in scaled}
        for table in (self._states, self._kept, self.decisions):
            for key in [k for k in table if k not in known]:
                del table[key]
        self._last = now

    def _decide(
        self, service: DesiredService, signal: Signal | None, now: float
    ) -> tuple[Decision, State]:
        key, scale = service.key, service.spec.mesh.scale
        assert scale is not None
        policy = autoscaler.make(settings_of(scale))
        state = self._states.get(key) or self._recall(key) or policy.initial(now)
        self._states[key], decision = policy.step(state, signal, now)
        self.decisions[key] = decision
        return decision, self._states[key]

    def _recall(self, key: str) -> State | None:
        """What was learned before a restart; None when nothing usable was stored."""
        stored = self._store.scaling.get(key)
        if stored is None:
            return None
        try:
            return autoscaler.load(json.loads(stored.state))
        except ValueError as error:
            _log.info("the autoscaler begins anew", service=key, error=str(error))
            return None

    def _tell(
        self, service: DesiredService, old: int | None, decision: Decision, now: float
    ) -> None:
        before = old if old is not None else service.count
        more = decision.desired > before
        direction = "hold" if decision.desired == before else "up" if more else "down"
        self._metrics.count_scale(service.key, direction, decision.cause)
        if direction == "hold":
            return
        self._events.record(
            now,
            Kind.SCALE_UP if more else Kind.SCALE_DOWN,
            f"{before} → {decision.desired}: {decision.reason}",
            project=service.project,
            service=service.spec.name,
            numbers=decision.numbers,
        )
