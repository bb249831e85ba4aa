"""How much one replica bears, learned from latency against requests in flight.

Little's law gives the busy workers of a replica: its answers a second times the service time.
Latency above the service time is waiting. Where there is little of it, a replica has more
workers than are busy: a bit more than those are `proven`. Where requests wait as long as they
are worked on, all workers are busy, and their number is seen (`bound`). Scaling up goes by
`bound`, scaling down by `proven`; between the two the number is left alone. The service time
cancels out of the replicas needed, so an error in it does little harm.
"""

from msgspec.structs import replace

from autoscaler.policy.state import Capacity
from autoscaler.signals import Signal

DECAY = 0.9
"""Sums over about ten seconds."""
PROBE = 0.2
"""How far beyond its busy workers a replica is trusted where nothing waits."""
QUICKEST = 1e-5
"""Seconds below which no service time is believed."""
FEW = 10
"""Answers below which a second says nothing by itself."""
MANY = 1000.0
"""Answers after which a mean is known well enough, and has to follow what changes."""
MUCH_LESS = 0.4
"""Share of the bound below which replicas have slowed down, rather than been measured badly."""
ASSUMED = 1.5
"""`bound` over `proven` until it has been seen."""


def observe(old: Capacity, signal: Signal) -> Capacity:
    """One second more of experience."""
    done, ready = signal.completions, signal.ready
    outside = signal.downstream_sum or 0.0
    own = max(0.0, signal.latency_sum - outside)
    cpu = None if signal.cpu is None else signal.cpu * ready
    seen = replace(
        old,
        completions=DECAY * old.completions + done,
        latency=DECAY * old.latency + own,
        outside=DECAY * old.outside + outside,
        replicas=DECAY * old.replicas + ready * signal.interval,
        queue=DECAY * old.queue + (signal.queue_sum or 0.0),
        cpu=old.cpu if cpu is None else cpu if not old.cpu else old.cpu + 0.15 * (cpu - old.cpu),
        startup=_startup(old.startup, old.started, signal.startups + signal.wakes),
        started=min(old.started + len(signal.startups) + len(signal.wakes), 1000),
        cold_start=_startup(old.cold_start, old.started, signal.startups),
    )
    if not done or not ready:
        return seen
    each = seen.outside / seen.completions
    if strained(seen):
        # What it calls is slow: that says nothing about its own replicas.
        return replace(seen, downstream=old.downstream + 0.0005 * (each - old.downstream))
    return replace(_learn(seen, signal, own), downstream=_usual(old.downstream, each))


def strained(capacity: Capacity) -> bool:
    """Whether requests wait unusually long for calls the service makes itself."""
    if not capacity.downstream or not capacity.completions:
        return False
    each = capacity.outside / capacity.completions
    return each > 2.0 * capacity.downstream and each - capacity.downstream > capacity.service_time


def excess(capacity: Capacity) -> float:
    """Waiting, in service times, of a mean request of the last ten seconds."""
    if not capacity.completions or not capacity.service_time:
        return 0.0
    mean = capacity.latency / capacity.completions
    return max(0.0, mean / capacity.service_time - 1.0)


def _learn(seen: Capacity, signal: Signal, own: float) -> Capacity:
    done, ready = signal.completions, signal.ready
    proven, bound, saturated = seen.proven, seen.bound, seen.saturated
    mean = seen.latency / seen.completions
    crowd = signal.in_flight / ready
    idle = crowd < max(0.5, 0.5 * proven)
    # What is answered while nothing waits; the sums still know of a queue that is gone.
    service, answers = _service_time(seen, own / done if idle else mean, done, idle)
    waits = max(0.0, mean / service - 1.0)
    busy = seen.completions / seen.replicas * service
    sample = busy * (1.0 + PROBE / (1.0 + 10.0 * waits))
    gain = 0.05 * seen.completions / (seen.completions + 30.0)
    rushed, wait = done / (ready * signal.interval) * service, own / done
    if done < FEW and seen.completions >= FEW:
        rushed, wait = busy, mean
    # One request at a time keeps no replica busy, however long it takes.
    crowded = crowd > max(1.6 * rushed, 1.0)
    if seen.completions >= FEW and wait > 2.0 * service and crowded:
        if saturated and (signal.startups or signal.wakes):
            pass  # Some replicas were there for a part of the second only.
        elif saturated:
            quick = rushed > bound or rushed < MUCH_LESS * bound
            bound += (0.2 if quick else 0.03) * (rushed - bound)
            if rushed < 1.0:
                # No replica has less than a worker: its requests take longer than they did.
                service *= 1.0 + 0.2 * min(1.0 / rushed - 1.0, 5.0)
        else:
            bound, saturated = max(rushed, 0.8 * proven), True
    elif sample > proven:
        proven += gain * (sample - proven)
    elif waits > 0.3 and not saturated:
        proven += gain * min(waits, 1.0) * (sample - proven)
    if not saturated:
        bound = max(bound, ASSUMED * proven)
    elif sample > bound and waits < 0.5:
        bound += 0.4 * gain * (sample - bound)
    bound = max(bound, 1.0)
    proven = max(min(proven, bound), 1.0)
    return replace(
        seen,
        service_time=service,
        answers=answers,
        proven=proven,
        bound=bound,
        saturated=saturated,
    )


def _service_time(seen: Capacity, mean: float, done: int, idle: bool) -> tuple[float, float]:
    """The service time and how many answers it is of: at first the mean of all of them. Later it
    falls quickly to what is seen, and rises where replicas are too idle to queue, and else very
    slowly, so that a slower version is believed in the end."""
    old, answers = seen.service_time, seen.answers
    if not old:
        return max(mean, QUICKEST), float(done)
    if mean < old or idle:
        weight = (0.3 if mean < old else 0.2) * done / (done + 300.0)
        weight = max(weight, done / (answers + done)) if answers < MANY else weight
        return max(old + weight * (mean - old), QUICKEST), min(answers + done, MANY)
    return old + min(mean - old, 0.00003 * old), answers


def _startup(old: float, count: int, took: tuple[float, ...]) -> float:
    """About the 85th percentile: starting too late costs more than starting too early."""
    value = old
    for at, one in enumerate(took, start=count + 1):
        first, later = (1.0, 0.3) if one > value or at == 1 else (0.4, 0.05)
        value += max(later, first / at) * (one - value)
    return min(max(value, 0.1), 120.0)


def _usual(old: float, each: float) -> float:
    return each if not old else old + (0.01 if each < 1.5 * old else 0.001) * (each - old)
