"""From reports to the number of replicas: signal → autoscaler → store, once a second.

It writes one number a service, and nothing while there is no data.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

import autoscaler
from autoscaler import Decision, Signal, State
from meshd.reconcile.desired import DesiredService
from meshd.reconcile.memory import Replica
from meshd.scaling.ask import is_scaled, settings_of
from meshd.scaling.cold import SEEN, Cold, demanded
from meshd.scaling.meter import Meter
from meshd.scaling.signals import signal_of
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.telemetry.events import Kind
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)
INTERVAL: Final = 1.0
KEEP_EVERY: Final = 30.0


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
        self.meter: Meter | None = None
        self._store = store
        self._events = events
        self._ingest = ingest
        self._metrics = metrics
        self._wake = wake
        self._states: dict[str, State] = {}
        self._kept: dict[str, float] = {}
        self._cold: dict[str, Cold] = {}
        self._last = 0.0

    def woken(self, service: DesiredService, worker: int, parked: int, now: float) -> None:
        """Requests wait at a worker for the first replica of a service: when it is at zero
        because nobody came, replicas are ordered at once."""
        key = service.key
        if not is_scaled(service) or self._by_hand(key, now):
            return
        cold = self._cold.get(key)
        if cold is None or cold.answered:
            if service.count > 0:
                return  # Its replicas are on their way, or failing; that is not for want of them.
            cold = self._cold[key] = Cold(began=now)
        scale = service.spec.mesh.scale
        assert scale is not None
        settings, state = settings_of(scale), self._state(service, now)
        floor, startup = demanded(settings, state, cold.more(worker, parked), now)
        cold.until = max(cold.until, now + startup + SEEN)
        if floor > cold.floor:
            cold.floor = floor
            self._store.set_scaling({key: (floor, autoscaler.dump(state))}, now)
            waiting = sum(cold.parked.values())
            text = f"0 → {floor}: {waiting} waiting for a first replica"
            self._record(service, Kind.SCALE_WAKE, text, {"parked": float(waiting)}, now)
            self._metrics.count_scale(key, "up", "wake")
            self._wake()

    def ready(self, key: str, now: float) -> None:
        """A replica of `PROJECT/SERVICE` got ready: a cold start ends with the first."""
        cold = self._cold.get(key)
        if cold is not None and not cold.answered:
            cold.answered = True
            self._metrics.observe_cold_start(key, now - cold.began)

    def _by_hand(self, key: str, now: float) -> bool:
        override = self._store.overrides.get(key)
        return override is not None and not 0 < override.until <= now

    def _floor(self, key: str, now: float) -> int:
        """The least that a service on its way up from zero is to have."""
        cold = self._cold.get(key)
        if cold is None:
            return 0
        if now >= cold.until:
            del self._cold[key]
            return 0
        return cold.floor

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
            loads = self.meter.loads if self.meter else {}
            signal = signal_of(service, group, seconds, loads, ejected, self._last)
            decision, state = self._decide(service, signal, now)
            before = self._store.scaling.get(key)
            old = before.desired if before else None
            floor = self._floor(key, now)
            if decision.desired < floor:
                decision = replace(decision, desired=floor, cause="wake")
            if old != decision.desired or self._kept.get(key, 0.0) + KEEP_EVERY < now:
                changed[key] = (decision.desired, autoscaler.dump(state))
                self._kept[key] = now
            self._tell(service, old, decision, now)
        if changed:
            self._store.set_scaling(changed, now)
            self._wake()
        known = {service.key for service in scaled}
        for table in (self._states, self._kept, self._cold, self.decisions):
            for key in [k for k in table if k not in known]:
                del table[key]
        self._last = now

    def _decide(
        self, service: DesiredService, signal: Signal | None, now: float
    ) -> tuple[Decision, State]:
        key, scale = service.key, service.spec.mesh.scale
        assert scale is not None
        policy = autoscaler.make(settings_of(scale))
        self._states[key], decision = policy.step(self._state(service, now), signal, now)
        self.decisions[key] = decision
        return decision, self._states[key]

    def _state(self, service: DesiredService, now: float) -> State:
        """What is known of a service so far."""
        found = self._states.get(service.key) or self._recall(service.key)
        if found is None:
            scale = service.spec.mesh.scale
            assert scale is not None
            found = autoscaler.make(settings_of(scale)).initial(now)
        return found

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
        kind = Kind.SCALE_UP if more else Kind.SCALE_DOWN
        text = f"{before} → {decision.desired}: {decision.reason}"
        self._record(service, kind, text, decision.numbers, now)

    def _record(
        self,
        service: DesiredService,
        kind: Kind,
        text: str,
        numbers: Mapping[str, float],
        now: float,
    ) -> None:
        self._events.record(
            now,
            kind,
            text,
            project=service.project,
            service=service.spec.name,
            numbers=numbers,
        )
