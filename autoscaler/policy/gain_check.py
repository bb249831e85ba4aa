"""Whether more replicas brought anything: cause before cure.

A scale-up for a queue is a trial. When its replicas serve and the queue is as long, and no more
gets done, the bottleneck is elsewhere: the number goes back and stays there for a while, twice
as long each time.
"""

from msgspec.structs import replace

from autoscaler.policy.capacity import DECAY, excess
from autoscaler.policy.state import Cap, Capacity, GainCheck
from autoscaler.signals import Signal

FIRST, LONGEST = 120.0, 1800.0
SETTLE = 8.0
MORE = 1.25
KEEPS_UP = 0.9
"""Answers for requests that come, from which on replicas keep up with them."""


def begin(capacity: Capacity, signal: Signal, now: float) -> GainCheck:
    """A trial of going up."""
    return GainCheck(now, signal.ready, *_figures(capacity))


def judge(
    trial: GainCheck | None,
    cap: Cap | None,
    capacity: Capacity,
    signal: Signal,
    desired: int,
    rate: float,
    now: float,
) -> tuple[GainCheck | None, Cap | None]:
    """The trial still open, and the cap that holds now or did not long ago. `desired` is the
    number that was decided on last, `rate` the requests a second that come now."""
    throughput, latency = _figures(capacity)
    if cap and (now > cap.until + LONGEST or _harmful(cap, throughput, capacity)):
        cap = None
    if trial is None or desired <= trial.ready:
        return None, cap  # where the order was taken back, nothing was tried
    if signal.ready <= trial.ready:
        # Until the first of the new ones serves: what the old ones do, in what they are asked now.
        trial = replace(trial, throughput=throughput, latency=latency, served=None)
        return (None if now > trial.since + 300.0 else trial), cap
    served = now if trial.served is None else trial.served
    if now < max(trial.since + 1.5 * capacity.startup, served) + SETTLE:
        return replace(trial, served=served), cap
    grown = signal.ready / max(trial.ready, 1) - 1.0
    better = throughput >= trial.throughput * (1.0 + 0.25 * grown)
    # More than comes cannot be done: no gain is where the old ones did as much.
    better = better or throughput >= KEEPS_UP * rate > trial.throughput
    waits = excess(capacity) > 0.5 and signal.latency_sum > (
        1.5 * capacity.service_time * signal.completions
    )
    if better or latency <= 0.8 * trial.latency or not waits:
        return None, None if cap and now > cap.until else cap
    span = min(2.0 * cap.span, LONGEST) if cap else FIRST
    return None, Cap(max(trial.ready, 1), now + span, span, MORE * rate, 0.9 * throughput)


def capped(cap: Cap | None, rate: float, now: float) -> int | None:
    """The number above which more brought nothing, while that holds: not for a new load."""
    return cap.number if cap and now < cap.until and rate <= cap.rate else None


def _harmful(cap: Cap, throughput: float, capacity: Capacity) -> bool:
    """Whether going back cost answers: then more replicas did bring something."""
    return throughput < cap.throughput and excess(capacity) > 0.5


def _figures(capacity: Capacity) -> tuple[float, float]:
    """(answers a second, mean latency) of the last ten seconds."""
    done = capacity.completions
    return done * (1.0 - DECAY), capacity.latency / done if done else 0.0
