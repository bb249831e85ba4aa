"""From reports to the number of replicas: signal → autoscaler → store, once a second.

It writes one number a service, and nothing while there is no data.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.capacity.allocate import Allocation
from meshd.capacity.job_demand import JobDemand
from meshd.model.desired import DesiredService
from meshd.model.event import Kind
from meshd.model.replica import Replica
from meshd.model.scaling import ScaleDecision, TrafficSpan
from meshd.scaling import decision_record
from meshd.scaling.decide import Cap, DecisionInput, ScalingDecision, apply_caps, run_policy
from meshd.scaling.limits import ChangeRateLimit, room
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.scaling.scale_from_zero import SEEN, ScaleFromZero, demanded
from meshd.scaling.schedule import scheduled_minimum
from meshd.scaling.settings import is_scaled, settings_of
from meshd.scaling.signals import signal_of, waited
from meshd.scaling.state_store import PolicyStateStore
from meshd.spec.model import Scale
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.usage_sampler import UsageSampler

INTERVAL: Final = 1.0
FLUSH: Final = 5.0


class ScalingController:
    """Steps every scaled service's policy, and tells what was decided."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        decisions: DecisionLog,
        traffic: TrafficLog,
        ingest: Ingest,
        counters: EventCounters,
        sampler: UsageSampler,
        queries: PrometheusQueries,
        jobs: Callable[[], Sequence[JobDemand]],
        wake: Callable[[], None],
    ) -> None:
        self._sampler = sampler
        self._queries = queries
        self._jobs = jobs
        self._store = store
        self._events = events
        self._decisions = decisions
        self._traffic = traffic
        self._ingest = ingest
        self._counters = counters
        self._wake = wake
        self._learned = PolicyStateStore(store)
        self._cold: dict[str, ScaleFromZero] = {}
        self._told: dict[str, ScaleDecision] = {}
        self._pace: dict[str, ChangeRateLimit] = {}
        self._short: dict[str, int] = {}
        self._last = 0.0
        self._flushed = 0.0

    def step(
        self,
        services: Sequence[DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> None:
        """One decision for every scaled service; changed numbers are stored at once."""
        scaled = {service.key: service for service in services if is_scaled(service)}
        cases = self._cases(scaled, replicas, now)
        wishes = {key: run_policy(case) for key, case in cases.items()}
        grants = self._room(services, wishes, now)
        numbers: dict[str, int] = {}
        for key, service in scaled.items():
            ceilings = self._ceilings(service, wishes[key], grants.get(key), now)
            verdict = apply_caps(cases[key], wishes[key], self._floor(key, now), ceilings)
            self._learned.learn(key, verdict.state, verdict.uncapped.warm)
            self._tell(service, cases[key], verdict, now)
            self._write_down(key, cases[key], verdict, now)
            numbers[key] = verdict.decision.desired
        if self._learned.keep(numbers, now):
            self._wake()
        self._learned.forget_others(numbers)
        for table in (self._cold, self._told, self._pace, self._short):
            for key in [key for key in table if key not in numbers]:
                del table[key]
        self._traffic.flush(now)
        if now - self._flushed >= FLUSH:
            self._decisions.flush(now)
            self._flushed = now
        self._last = now

    def _cases(
        self,
        scaled: Mapping[str, DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> dict[str, DecisionInput]:
        """What every decision of this second is made from."""
        seconds = self._ingest.second(now)
        downstream = waited(seconds.values())
        loads = self._sampler.loads
        scales = {key: _scale(service) for key, service in scaled.items()}
        self._queries.want([each.prometheus for each in scales.values() if each.prometheus])
        cases: dict[str, DecisionInput] = {}
        for key, service in scaled.items():
            scale, settings = scales[key], settings_of(scales[key])
            query = scale.prometheus
            signal = signal_of(
                service,
                replicas.get(key, ()),
                seconds.get(key),
                downstream.get(key, 0.0),
                loads,
                sum(each.ejected_by > 0 for each in self._ingest.endpoints(key, now).values()),
                self._last or now,
                self._queries.value(query, time.monotonic()) if query else None,
                scheduled_minimum(scale.schedule, now),
            )
            cooling = self._pace.setdefault(key, ChangeRateLimit()).cooling(scale, now)
            state = self._learned.state(key, settings, now)
            cases[key] = DecisionInput(settings, state, signal, now, cooling)
        return cases

    def _room(
        self, services: Sequence[DesiredService], wishes: Mapping[str, ScalingDecision], now: float
    ) -> dict[str, Allocation]:
        by_hand = {
            service.key: override.replicas
            for service in services
            if (override := self._store.override(service.key, now)) is not None
        }
        quotas = {
            name: stored.project.quota
            for name, stored in self._store.projects.items()
            if stored.project.quota is not None
        }
        nodes, limits_memory = self._sampler.nodes, self._sampler.limits_memory
        return room(nodes, services, wishes, by_hand, limits_memory, quotas, self._jobs())

    def _ceilings(
        self, service: DesiredService, wished: ScalingDecision, grant: Allocation | None, now: float
    ) -> list[Cap]:
        """What holds a service's number down now; that there is no room is told when it begins
        and when it changes."""
        key, scale = service.key, _scale(service)
        current, wanted = self._current(service), wished.decision.desired
        ceilings = self._pace[key].ceilings(scale, current, wanted, now)
        if grant is not None and grant.why and grant.count < wanted:
            why = f"room for {grant.count}, {grant.why}"
            ceilings.append(Cap(grant.count, "room", why))
            if self._short.get(key) != grant.count:
                text, numbers = f"wanted {wanted}, {why}", {"wanted": float(wanted)}
                self._record(service, Kind.SCALE_SHORT, text, numbers, now)
                self._short[key] = grant.count
        elif self._short.pop(key, None) is not None:
            self._record(service, Kind.SCALE_SHORT, f"room for all {wanted} again", {}, now)
        return ceilings

    def _current(self, service: DesiredService) -> int:
        """The number decided last; before the first decision, the one there is."""
        desired = self._learned.desired(service.key)
        return desired if desired is not None else service.desired

    def close(self, now: float) -> None:
        """The end: what was learned and decided is stored."""
        self._learned.close(now)
        self._decisions.flush(now)
        self._traffic.flush(now)

    # From zero

    def woken(self, service: DesiredService, worker: int, parked: int, now: float) -> None:
        """Requests wait at a worker for the first replica of a service: when it is at zero
        because nobody came, replicas are ordered at once."""
        key = service.key
        if not is_scaled(service) or self._store.override(key, now):
            return
        cold = self._cold.get(key)
        if cold is None or cold.answered:
            if service.desired > 0:
                return  # Its replicas are on their way, or failing; that is not for want of them.
            cold = self._cold[key] = ScaleFromZero(began=now)
        settings = settings_of(_scale(service))
        state = self._learned.state(key, settings, now)
        floor, startup = demanded(settings, state, cold.more(worker, parked), now)
        cold.until = max(cold.until, now + startup + SEEN)
        if floor > cold.floor:
            cold.floor = floor
            self._learned.learn(key, state)
            self._learned.keep({key: floor}, now)
            waiting = sum(cold.parked.values())
            text = f"0 → {floor}: {waiting} waiting for a first replica"
            self._record(service, Kind.SCALE_WAKE, text, {"parked": float(waiting)}, now)
            self._counters.count_scale(key, "up", "wake")
            self._wake()

    def ready(self, key: str, now: float) -> None:
        """A replica of `PROJECT/SERVICE` got ready: a cold start ends with the first."""
        cold = self._cold.get(key)
        if cold is not None and not cold.answered:
            cold.answered = True
            self._counters.observe_cold_start(key, now - cold.began)

    def _floor(self, key: str, now: float) -> int:
        """The least that a service on its way up from zero is to have."""
        cold = self._cold.get(key)
        if cold is None:
            return 0
        if now >= cold.until:
            del self._cold[key]
            return 0
        return cold.floor

    # What is told

    def _write_down(
        self, key: str, case: DecisionInput, verdict: ScalingDecision, now: float
    ) -> None:
        """The second's traffic, for later simulations."""
        model = verdict.uncapped.numbers
        if case.signal is not None:
            second = TrafficSpan(
                at=int(now) - 1,
                seconds=1,
                arrivals=case.signal.arrivals,
                service_time=model.get("service_time", 0.0),
                workers=model.get("workers_bound", 0.0),
                startup=model.get("startup", 0.0),
            )
            self._traffic.add(key, second)

    def _tell(
        self,
        service: DesiredService,
        case: DecisionInput,
        verdict: ScalingDecision,
        now: float,
    ) -> None:
        key, decision = service.key, verdict.decision
        before = self._current(service)
        override = self._store.override(key, now)
        by_hand = override.replicas if override else None
        told = decision_record.made(case.settings, case.signal, verdict, before, by_hand, now)
        if decision_record.worth_keeping(self._told.get(key), told):
            self._told[key] = told
            self._decisions.add(key, told)
        more = decision.desired > before
        direction = "hold" if decision.desired == before else "up" if more else "down"
        self._counters.count_scale(key, direction, decision.cause)
        if direction == "hold":
            return
        self._pace[key].changed(now)
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


def _scale(service: DesiredService) -> Scale:
    return service.spec.mesh.scale or Scale()
