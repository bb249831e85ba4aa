"""The autoscaler's step: reports → policy → caps → number of replicas in the store.

`meshd.daemon.ticker` calls `ScalingController.step` once a second; the daemon also reports parked
requests and ready replicas to it at once. It writes one number for each service, and none while
there is no data. `meshd.reconcile` acts on the number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.capacity import start_rate
from meshd.capacity.allocate import Allocation
from meshd.capacity.job_demand import JobDemand
from meshd.model.desired import DesiredService
from meshd.model.errors import StoreWriteError
from meshd.model.event import Kind
from meshd.model.replica import Replica
from meshd.model.scaling import ScaleDecision, TrafficSpan
from meshd.scaling import decision_record
from meshd.scaling.decide import Cap, DecisionInput, ScalingDecision, apply_caps, run_policy
from meshd.scaling.limits import ChangeRateLimit, allocate_capacity
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.scaling.scale_from_zero import SIGNAL_DELAY, ColdStart, replicas_for
from meshd.scaling.schedule import scheduled_minimum
from meshd.scaling.settings import is_scaled, settings_of
from meshd.scaling.signals import call_seconds_by_caller, signal_of
from meshd.scaling.start_caps import Growth, growth_of, not_yet_started, start_caps
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
"""Seconds between two steps: the interval of the workers' reports."""
FLUSH_INTERVAL: Final = 5.0
"""Seconds between two writes of the decision log: what a killed process loses at most."""


class ScalingController:
    """Decides the number of replicas of every scaled service, and records why.

    - `jobs`: returns the running jobs, which take capacity from the services.
    - `wake`: called when a number changed, so that the reconciler acts at once.
    - `start_slots`: returns how many replicas may always start at the same time; 0: no limit.
    """

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
        start_slots: Callable[[], int] = int,
    ) -> None:
        self._store = store
        self._events = events
        self._decisions = decisions
        self._traffic = traffic
        self._ingest = ingest
        self._counters = counters
        self._sampler = sampler
        self._queries = queries
        self._jobs = jobs
        self._wake = wake
        self._start_slots = start_slots
        self._starts: tuple[start_rate.ReplicaStart, ...] = ()
        self._first_step = 0.0
        self._states = PolicyStateStore(store)
        self._cold_starts: dict[str, ColdStart] = {}
        self._last_records: dict[str, ScaleDecision] = {}
        self._rate_limits: dict[str, ChangeRateLimit] = {}
        self._short_of_capacity: dict[str, int] = {}
        self._last_step = 0.0
        self._last_flush = 0.0

    def step(
        self,
        services: Sequence[DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> None:
        """Decide once for every scaled service. Changed numbers are stored at once."""
        scaled = {service.key: service for service in services if is_scaled(service)}
        inputs = self._inputs(scaled, replicas, now)
        uncapped = {key: run_policy(each) for key, each in inputs.items()}
        allocations = self._allocate(services, uncapped, now)
        results: dict[str, ScalingDecision] = {}
        before = {key: self._current(service) for key, service in scaled.items()}
        by_starts = self._start_caps(scaled, replicas, uncapped, now)
        for key, service in scaled.items():
            caps = self._caps(service, uncapped[key], allocations[key], now)
            caps += [by_starts[key]] if key in by_starts else []
            results[key] = result = apply_caps(
                inputs[key], uncapped[key], self._floor(service, now), caps
            )
            self._states.set_state(key, result.state, result.uncapped.warm)
            self._record_traffic(key, inputs[key], result, now)
        numbers = {key: result.decision.desired for key, result in results.items()}
        self._last_step = now
        try:
            changed = self._states.save(numbers, now)
        except StoreWriteError:
            self._states.revert(numbers)
            raise
        for key, service in scaled.items():
            self._record_decision(service, inputs[key], results[key], before[key], now)
        if changed:
            self._wake()
        self._states.forget_others(numbers)
        for table in (
            self._cold_starts,
            self._last_records,
            self._rate_limits,
            self._short_of_capacity,
        ):
            for key in [key for key in table if key not in numbers]:
                del table[key]
        self._traffic.flush(now)
        if now - self._last_flush >= FLUSH_INTERVAL:
            self._decisions.flush(now)
            self._last_flush = now

    def close(self, now: float) -> None:
        """Store everything learned and decided."""
        self._states.close(now)
        self._decisions.flush(now)
        self._traffic.flush(now)

    # Input

    def _inputs(
        self,
        scaled: Mapping[str, DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> dict[str, DecisionInput]:
        """Return the input of every decision of this second."""
        seconds = self._ingest.second(now)
        downstream = call_seconds_by_caller(seconds.values())
        loads = self._sampler.loads
        scales = {key: _scale(service) for key, service in scaled.items()}
        self._queries.set_queries([each.prometheus for each in scales.values() if each.prometheus])
        inputs: dict[str, DecisionInput] = {}
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
                self._last_step or now,
                self._queries.value(query) if query else None,
                scheduled_minimum(scale.schedule, now),
            )
            cooling = self._rate_limits.setdefault(key, ChangeRateLimit()).is_cooling(scale, now)
            state = self._states.state(key, settings, now)
            if signal is None and state.desired < 0:
                # Without data the number stays, so a new policy has to know it.
                state = msgspec.structs.replace(state, desired=self._current(service))
            inputs[key] = DecisionInput(settings, state, signal, now, cooling)
        return inputs

    # Limits

    def _allocate(
        self,
        services: Sequence[DesiredService],
        uncapped: Mapping[str, ScalingDecision],
        now: float,
    ) -> dict[str, Allocation]:
        """Return what the nodes and quotas allow each service."""
        overrides = {
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
        return allocate_capacity(
            nodes, services, uncapped, overrides, limits_memory, quotas, self._jobs()
        )

    def _caps(
        self,
        service: DesiredService,
        uncapped: ScalingDecision,
        allocation: Allocation,
        now: float,
    ) -> list[Cap]:
        """Return the caps on a service's number. Record an event when a shortage of capacity
        begins, changes or ends."""
        key, scale = service.key, _scale(service)
        current, needed = self._current(service), uncapped.decision.desired
        caps = self._rate_limits[key].caps(scale, current, needed, now)
        if self._store.override(key, now):
            self._short_of_capacity.pop(key, None)
            return caps  # a number that is set by hand holds, so nothing is short
        if allocation.reason and allocation.count < needed:
            reason = f"but capacity for {allocation.count} only: {allocation.reason}"
            caps.append(Cap(allocation.count, "room", reason))
            if self._short_of_capacity.get(key) != allocation.count:
                text, numbers = f"{needed} wanted, {reason}", {"wanted": float(needed)}
                self._record_event(service, Kind.SCALE_SHORT, text, numbers, now)
                self._short_of_capacity[key] = allocation.count
        elif self._short_of_capacity.pop(key, None) is not None:
            text = f"capacity for all {needed} replicas again"
            self._record_event(service, Kind.SCALE_SHORT, text, {}, now)
        return caps

    def _start_caps(
        self,
        scaled: Mapping[str, DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        uncapped: Mapping[str, ScalingDecision],
        now: float,
    ) -> dict[str, Cap]:
        """Return the caps by what the nodes can start. Numbers set by hand are not capped."""
        self._first_step = self._first_step or now
        everyone = [replica for group in replicas.values() for replica in group]
        self._starts = start_rate.observe(
            self._starts, everyone, self._first_step, self._last_step, now
        )
        slots = self._start_slots()
        growths: dict[str, Growth] = {}
        for key, service in scaled.items():
            current, needed = self._current(service), uncapped[key].decision.desired
            if needed > current and not self._store.override(key, now):
                scale, group = _scale(service), replicas.get(key, ())
                growths[key] = growth_of(current, needed, scale.min, scale.priority, group)
        if not slots or not growths:
            return {}
        under_way = sum(start_rate.starts_under_way(everyone, self._starts, now).values())
        for key, service in scaled.items():
            age = now - self._rate_limits[key].changed_at
            group = replicas.get(key, ())
            under_way += not_yet_started(self._current(service), group, age, self._starts)
        return start_caps(growths, under_way, start_rate.start_capacity(self._starts, slots))

    def _current(self, service: DesiredService) -> int:
        """Return the number decided last; before the first decision, the present one."""
        desired = self._states.desired(service.key)
        return desired if desired is not None else service.desired

    # Scale from zero

    def start_from_zero(
        self, service: DesiredService, worker: int, parked: int, now: float
    ) -> None:
        """Order replicas at once, because requests wait at a worker for a first replica. Does
        nothing unless the service is at zero for lack of traffic."""
        key = service.key
        if not is_scaled(service) or self._store.override(key, now):
            return
        start = self._cold_starts.get(key)
        if start is None or start.ready or now >= start.until:
            if service.desired > 0:
                return  # Its replicas are starting or failing; more of them would not help.
            start = self._cold_starts[key] = ColdStart(began=now)
        settings = settings_of(_scale(service))
        state = self._states.state(key, settings, now)
        waiting = start.add_parked(worker, parked)
        floor, startup = replicas_for(settings, state, waiting, now)
        slots = self._start_slots()
        floor = min(floor, start_rate.start_capacity(self._starts, slots)) if slots else floor
        start.until = max(start.until, now + startup + SIGNAL_DELAY)
        if floor > start.floor:
            start.floor = floor
            self._states.set_state(key, state)
            self._states.save({key: floor}, now)
            noun = "request waits" if waiting == 1 else "requests wait"
            text = f"0 → {floor}: {waiting} {noun} for a first replica"
            self._record_event(service, Kind.SCALE_WAKE, text, {"parked": float(waiting)}, now)
            self._counters.count_scale(key, "up", "wake")
            self._wake()

    def replica_ready(self, key: str, now: float) -> None:
        """End the start from zero of `PROJECT/SERVICE`, if this is its first ready replica."""
        start = self._cold_starts.get(key)
        if start is not None and not start.ready:
            start.ready = True
            self._counters.observe_cold_start(key, now - start.began)

    def _floor(self, service: DesiredService, now: float) -> int:
        """Return the replicas ordered for a start from zero; 0 if there is none. A start that takes
        longer than expected is known until a replica is ready, but orders none any more."""
        start = self._cold_starts.get(service.key)
        if start is None:
            return 0
        if now < start.until:
            return start.floor
        if start.ready or service.desired == 0:
            del self._cold_starts[service.key]
        return 0

    # Records

    def _record_traffic(
        self, key: str, data: DecisionInput, result: ScalingDecision, now: float
    ) -> None:
        """Record the traffic of this second for later simulations."""
        numbers = result.uncapped.numbers
        if data.signal is not None:
            second = TrafficSpan(
                at=int(now) - 1,
                seconds=1,
                arrivals=data.signal.arrivals,
                service_time=numbers.get("service_time", 0.0),
                workers=numbers.get("workers_bound", 0.0),
                startup=numbers.get("startup", 0.0),
            )
            self._traffic.add(key, second)

    def _record_decision(
        self,
        service: DesiredService,
        data: DecisionInput,
        result: ScalingDecision,
        before: int,
        now: float,
    ) -> None:
        """Record a decision for `meshd explain`, for `/metrics`, and as an event if the number
        changes."""
        key, decision = service.key, result.decision
        override = self._store.override(key, now)
        by_hand = override.replicas if override else None
        record = decision_record.make_record(
            data.settings, data.signal, result, before, by_hand, now
        )
        if decision_record.is_worth_keeping(self._last_records.get(key), record):
            self._last_records[key] = record
            self._decisions.add(key, record)
        up = decision.desired > before
        direction = "hold" if decision.desired == before else "up" if up else "down"
        if by_hand is not None:
            direction = "hold"  # a number that is set by hand holds, whatever the policy would do
        self._counters.count_scale(key, direction, decision.cause)
        if direction == "hold":
            return
        self._rate_limits[key].record_change(now)
        kind = Kind.SCALE_UP if up else Kind.SCALE_DOWN
        text = f"{before} → {decision.desired}: {decision.reason}"
        self._record_event(service, kind, text, decision.numbers, now)

    def _record_event(
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
