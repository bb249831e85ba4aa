"""How many replicas: the policy and the published ones it is measured against.

Belongs here: pure functions from (state, signal, now) to (state, decision). Does not belong
here: the simulator that drives them, and anything that acts on a decision.
"""

import math
from dataclasses import replace

from autoscaler.decision import Decision
from autoscaler.policy.state import State
from autoscaler.settings import Settings
from autoscaler.signals import Signal


class Policy:
    """A policy made from settings: holds no state of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def initial(self, now: float) -> State:
        """The state of a service that nothing is known about yet."""
        return State(started=now, last_arrival=now)

    def step(self, state: State, signal: Signal | None, now: float) -> tuple[State, Decision]:
        """One step, once a second of `now` (seconds, from any origin). `signal` None is
        "no data", which holds the number."""
        settings = self.settings
        if signal is None:
            held = max(settings.min, state.desired)
            return state, Decision(held, "no-data", f"no data: holding {held}")
        current = state.desired or signal.ready + signal.starting
        rates = (*state.rates[-31:], signal.arrivals / signal.interval)
        rate = _significant(rates)
        service = state.service_time
        if signal.completions:
            mean = signal.latency_sum / signal.completions
            service = min(mean, service * 1.001) if service else mean
        workers = settings.concurrency or max(state.workers, 1.0)
        if signal.ready and service and not settings.concurrency:
            workers = max(workers, signal.completions / signal.ready * service)
        load = rate * service
        backlog = max(0.0, signal.in_flight - load) * service
        need = math.ceil((load + math.sqrt(load) + backlog) / workers) + signal.parked
        needs = (*state.needs[-29:], need)
        wanted = need if need > current else min(current, max(needs))
        idle = now - state.last_arrival if not signal.arrivals else 0.0
        if not idle or idle < settings.idle:
            wanted = max(wanted, 1)
        desired = min(max(wanted, settings.min), settings.max)
        cause = "load" if desired > current else "idle" if desired < current else "hold"
        next_state = replace(
            state,
            desired=desired,
            rates=rates,
            needs=needs,
            service_time=service,
            workers=workers,
            last_arrival=now if signal.arrivals or signal.parked else state.last_arrival,
        )
        reason = f"{rate:.1f} requests/s of {service * 1000:.0f} ms on {workers:.1f} workers each"
        return next_state, Decision(desired, cause, reason, {"rate": rate, "load": load})


def _significant(rates: tuple[float, ...]) -> float:
    best = sum(rates[-30:]) / len(rates[-30:])
    for width in (2, 4, 8, 16, 32):
        mean = sum(rates[-width:]) / width
        best = max(best, mean - 2.0 * math.sqrt(mean / width))
    return best


def make(settings: Settings) -> Policy:
    """The policy for `settings`."""
    return Policy(settings)
