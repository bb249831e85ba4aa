"""How much load one replica can serve, learned from latency and requests in flight. Pure.

The policy calls `observe` once a second; `policy.objectives` divides the load by the result.

Method: by Little's law, the busy workers of a replica are its answers per second times the service
time. Latency above the service time is waiting.

- Requests hardly wait: a replica has more workers than are busy. It is trusted with a few more
  than those (`proven`). Scaling down goes by this number.
- Requests wait as long as they are worked on: all workers are busy, so their number is visible
  (`bound`). Scaling up goes by this number.
- Between the two the number of replicas stays.

The service time cancels out of the number of replicas, so an error in it does little harm.

Every constant without another reason was tuned on the recorded traces in bench/autoscaling.py.
"""

from math import sqrt
from typing import Final

from msgspec.structs import replace

from autoscaler.policy.state import CapacityEstimate
from autoscaler.signals import Signal

DECAY: Final = 0.9
"""Factor per second on the sums: a memory of about ten seconds."""
CPU_WEIGHT: Final = 0.15
"""Weight of one second in the CPU use: a memory of about seven seconds."""
MIN_WORKERS: Final = 1.0
"""Workers that every replica has: it answers one request at a time."""

# Which seconds say something.
FEW_ANSWERS: Final = 10
"""Answers below which one second says nothing by itself."""
MANY_ANSWERS: Final = 30
"""Answers from which a single long request does not double the mean of one second. Fewer do not
show the first bound, because one that is too low is kept for long."""
IDLE_WORKERS, IDLE_SHARE = 0.5, 0.5
"""A replica is idle below this many requests in flight, or below this share of `proven`: half of
its workers are free, so its requests do not wait."""

# The service time.
MIN_SERVICE_TIME: Final = 1e-5
"""Seconds below which no service time is plausible: a loopback request takes longer."""
FIRST_ANSWERS: Final = 200.0
"""Answers up to which the mean of all counts while few requests are in flight, and before which the
bound is not measured: at first only short requests have ended."""
KNOWN_ANSWERS: Final = 1000.0
"""Answers after which the mean is known well enough, and starts to follow changes. Up to it the
seconds with few answers all count: with the quicker ones alone the service time would be too low,
and every latency would look like waiting."""
FALL_WEIGHT, RISE_WEIGHT = 0.3, 0.2
"""Largest weight of one second in the service time, when it falls and when it rises. It falls
faster, because waiting only ever adds to a latency."""
FULL_WEIGHT_ANSWERS: Final = 300.0
"""Answers in a second that give half of the weight above; fewer answers are noisier."""
CREEP: Final = 0.00003
"""Relative rise per second of the service time while replicas are busy: 11 % an hour, so that a
slower version is noticed in the end, and a rush does not count as one."""

# How long requests take that need not wait.
QUICK_SHARE: Final = 0.2
"""Share of the answers of a second whose latency is compared: they do not wait while any worker is
free, and new replicas that are slow at first serve none of them."""
SPREAD_WEIGHT: Final = 0.02
"""Largest weight of one idle second in the ratio of the mean to that latency: a memory of a
minute."""
SPREAD_WAIT: Final = 1.1
"""Mean latency, in service times, up to which requests hardly wait, so that the ratio is known."""
MAX_QUICK_WAIT: Final = 0.15
"""Relative rise of that latency up to which some workers are free: requests wait at single
replicas, not everywhere."""
MAX_LOCAL_WAIT: Final = 0.3
"""Relative rise of that latency up to which a lower limit of a replica is not believed: requests
wait at some replicas, for example at those that are slow at first."""
MIN_SPREAD: Final = 1.2
"""Ratio of the mean to that latency from which a queue changes it visibly."""
LIKE_SPREAD: Final = 0.15
"""Relative deviation of that ratio up to which all requests take longer, rather than wait."""
DRIFT_WEIGHT: Final = 0.02
"""Weight of one second in the slowdown while all requests take longer: a memory of 50 seconds, so
that the queue of a burst is not taken for a slower service."""

# Workers proven.
PROBE: Final = 0.2
"""Share beyond its busy workers that a replica is trusted with while no request waits, so that
surplus is given up step by step."""
PROBE_WAIT_FACTOR: Final = 10.0
"""How quickly that share shrinks with waiting: by half at a wait of 0.1 service times."""
LEARN_WEIGHT: Final = 0.05
"""Largest weight of one second in `proven`: a memory of 20 seconds."""
HALF_WEIGHT_ANSWERS: Final = 30.0
"""Answers in ten seconds that give half of this weight."""
WAITING: Final = 0.3
"""Wait, in service times, above which `proven` may fall while the bound is not yet measured."""
MAX_WAIT_WEIGHT: Final = 1.0
"""Wait, in service times, from which `proven` falls with the full weight."""

# Upper bound on the workers.
ASSUMED_RATIO: Final = 0.5
"""Share beyond the busy workers that a replica may have, until the bound has been measured. It
shrinks with waiting as `PROBE` does; once a start-up was seen, as far as chance does not explain
the wait."""
CHANCE_DEVIATIONS: Final = 2.0
"""Standard deviations of the mean of the recent answers that chance explains, as if their times
were spread exponentially."""
NEAR_PROVEN, NEAR_BOUND = 0.8, 0.7
"""Shares of `proven` and of `bound` that must be busy for waiting to say something about the
number of workers: below the first, requests wait for something else. Below the second, requests
that all take longer are slower rather than waiting."""
SATURATED_LATENCY: Final = 2.0
"""Latency, in service times, above which all workers are busy: requests wait as long as they are
worked on."""
CROWD_RATIO: Final = 1.6
"""Requests in flight per busy worker above which requests queue; one service time of waiting alone
would give 2."""
WARM_UP: Final = 40.0
"""Seconds for which a new replica may be slow (JIT, cold caches): half a minute, and the memory of
the sums. Meanwhile it does not lower the known limit of a replica, and is not said to be useless
while other replicas answer quickly."""
WARM_UP_WAIT: Final = 1.0
"""Relative rise of the quick latencies up to which other replicas answer quickly. A slow dependency
delays every request by far more."""
NEW_REPLICA: Final[float] = DECAY**WARM_UP
"""What is left of a replica in `newcomers` when it has been ready for that long."""
MANY_NEWCOMERS: Final = 0.3
"""Share of the ready replicas that became ready within about ten seconds from which the first bound
is not measured at the start of traffic: new replicas are slow at first."""
SLOWDOWN_RATIO: Final = 0.4
"""Share of the known workers below which the requests have become slower: a replica does not lose
most of its workers."""
FAST_BOUND_WEIGHT, SLOW_BOUND_WEIGHT = 0.2, 0.03
"""Weight of one saturated second in the bound: after a change of the replicas, and otherwise."""
SLOWDOWN_WEIGHT: Final = 0.2
"""Relative rise per second of the service time for each missing worker, where a replica seems to
have less than one."""
MAX_SLOWDOWN: Final = 5.0
"""Most missing workers that count for it: the service time at most doubles in a second."""
CALM_WAIT: Final = 0.5
"""Wait, in service times, below which more busy workers than the bound prove that it is too
low."""
RAISE_BOUND_SHARE: Final = 0.4
"""Weight of a second with that wait in the bound, as a share of its weight in `proven`."""

# The service's own calls.
STRAIN_RATIO: Final = 2.0
"""Ratio to the normal time in own calls above which the called services are slow."""
DOWNSTREAM_WEIGHT: Final = 0.01
"""Weight of one second in the normal time of own calls: a memory of about two minutes."""
HIGH_DOWNSTREAM_RATIO, HIGH_DOWNSTREAM_WEIGHT = 1.5, 0.001
"""A second above this ratio has this smaller weight, so that a slow dependency does not soon
become normal."""
STRAINED_WEIGHT: Final = 0.0005
"""Weight of a second while the called services are slow."""

# Start-up.
MAX_STARTED: Final = 1000
"""Number of start-ups up to which they are counted; only the first few matter."""
FIRST_LATE, LATER_LATE = 1.0, 0.3
"""Weight of the first start-up, and least weight of a later one, that took longer than the
estimate."""
FIRST_EARLY, LATER_EARLY = 0.4, 0.05
"""The same for a start-up that took less. 0.05 against 0.3 settles at about the 85th percentile."""
MIN_STARTUP, MAX_STARTUP = 0.1, 300.0
"""Seconds: a replica resumed from the warm pool; the longest start-up that is planned for. A start
that lasts longer has probably failed, and does not count."""
MAX_TRACKED: Final = 32
"""Starts under way of which the age is kept; the estimate has moved long before."""


def observe(old: CapacityEstimate, signal: Signal) -> CapacityEstimate:
    """Return the estimate with one more second."""
    done, ready = signal.completions, signal.ready
    outside = signal.downstream_sum or 0.0
    own = max(0.0, signal.latency_sum - outside)
    startups = signal.startups + signal.wakes
    startup = _learn_startup(old.startup, old.started, startups)
    started = min(old.started + len(startups), MAX_STARTED)
    starting = _track_starts(old.starting, signal)
    new = replace(
        old,
        completions=DECAY * old.completions + done,
        latency=DECAY * old.latency + own,
        outside=DECAY * old.outside + outside,
        replicas=DECAY * old.replicas + ready * signal.interval,
        queue=DECAY * old.queue + (signal.queue_sum or 0.0),
        quick=DECAY * old.quick + done * _quick_latency(signal),
        newcomers=DECAY * old.newcomers + len(startups),
        cpu=_smooth_cpu(old.cpu, signal),
        startup=startup,
        started=started,
        starting=starting,
        planned_startup=_plan_startup(startup, started, starting),
        cold_start=_learn_startup(old.cold_start, old.started, signal.startups),
    )
    if not done or not ready:
        return new
    outside_each = new.outside / new.completions
    if is_strained(new):
        # The services it calls are slow. This says nothing about its own replicas.
        downstream = old.downstream + STRAINED_WEIGHT * (outside_each - old.downstream)
        return replace(new, downstream=downstream)
    return replace(
        _learn_workers(new, signal, own),
        downstream=_learn_downstream(old.downstream, outside_each),
    )


def is_strained(capacity: CapacityEstimate) -> bool:
    """Return whether requests wait unusually long for the service's own calls."""
    if not capacity.downstream or not capacity.completions:
        return False
    each = capacity.outside / capacity.completions
    return (
        each > STRAIN_RATIO * capacity.downstream
        and each - capacity.downstream > capacity.service_time
    )


def is_measured(capacity: CapacityEstimate) -> bool:
    """Return whether enough answers were seen to say how many requests a replica can serve."""
    known = capacity.service_time > 0.0 and capacity.answers >= FIRST_ANSWERS
    return known or capacity.saturated


def relative_wait(capacity: CapacityEstimate) -> float:
    """Return how long a mean request of the last ten seconds waited, in service times."""
    if not capacity.completions or not capacity.service_time:
        return 0.0
    mean = capacity.latency / capacity.completions
    return max(0.0, mean / capacity.present_time - 1.0)


def has_free_workers(capacity: CapacityEstimate, wait: float = MAX_QUICK_WAIT) -> bool:
    """Return whether many requests hardly wait, so that waiting ones wait at single replicas: at
    new ones that are slow at first, for example. `wait` is how much longer than usual, as a share,
    they may take."""
    if not capacity.spread or not capacity.completions:
        return False
    limit = (1.0 + wait) * capacity.service_time / capacity.spread
    return _quick(capacity) < limit


def may_have_slow_replicas(capacity: CapacityEstimate) -> bool:
    """Return whether a replica became ready in the last `WARM_UP` seconds, for several at once a
    few seconds more, while others answer quickly."""
    return capacity.newcomers > NEW_REPLICA and has_free_workers(capacity, WARM_UP_WAIT)


def _smooth_cpu(old: float, signal: Signal) -> float:
    if signal.cpu is None:
        return old
    total = signal.cpu * signal.ready
    return total if not old else old + CPU_WEIGHT * (total - old)


def _learn_workers(new: CapacityEstimate, signal: Signal, own: float) -> CapacityEstimate:
    """Update service time, `proven` and `bound`. `own` is the latency sum without own calls."""
    done, ready = signal.completions, signal.ready
    proven, bound, saturated = new.proven, new.bound, new.saturated
    mean = new.latency / new.completions
    crowd = signal.awaited / ready
    idle = crowd < max(IDLE_WORKERS, IDLE_SHARE * proven)
    # An idle second counts by itself: the sums may still contain a queue that is gone. So does one
    # of the first: they would count the first short requests again and again.
    uncrowded = crowd <= CROWD_RATIO * bound
    enough = FIRST_ANSWERS if done >= MANY_ANSWERS else KNOWN_ANSWERS
    first = new.answers < enough and uncrowded
    each = own / done if idle or first else mean
    service, answers = _learn_service_time(new, each, done, idle, first)
    calm = idle or mean < SPREAD_WAIT * service
    spread = _learn_spread(new, own / done, signal) if calm else new.spread
    slower = not idle and uncrowded and _all_take_longer(new, mean)
    slowdown = _learn_slowdown(new, service, min(mean, own / done) if idle else mean, slower)
    # Up to here a queue of requests that are not crowded would look like it.
    certain = slowdown > CROWD_RATIO / (1.0 + LIKE_SPREAD)
    present = service * slowdown if certain else service
    wait, busy = max(0.0, mean / service - 1.0), new.completions / new.replicas * service
    # The slowdown leaves out a rise that may be waiting, but here hardly any request waits.
    longest = (1.0 + LIKE_SPREAD) * present
    abrupt = new.abrupt and certain
    if certain and slower and not abrupt and mean < SPREAD_WAIT * longest:
        wait, busy = max(0.0, mean / longest - 1.0), busy * slowdown
    sample = busy * (1.0 + PROBE / (1.0 + PROBE_WAIT_FACTOR * wait))
    weight = LEARN_WEIGHT * new.completions / (new.completions + HALF_WEIGHT_ANSWERS)
    busy_now, latency_now = done / (ready * signal.interval) * present, own / done
    few = FEW_ANSWERS if saturated else MANY_ANSWERS
    if done < few and new.completions >= FEW_ANSWERS:
        busy_now, latency_now = new.completions / new.replicas * present, mean
    # One request at a time does not saturate a replica, however long it takes.
    crowded = not slower and crowd > max(CROWD_RATIO * busy_now, MIN_WORKERS)
    known = saturated or answers >= FIRST_ANSWERS
    if known and latency_now > SATURATED_LATENCY * present and crowded:
        usual = bound if saturated else proven
        if saturated and (signal.startups or signal.wakes):
            pass  # Some replicas were ready for a part of this second only.
        elif answers < KNOWN_ANSWERS and not saturated and new.newcomers > MANY_NEWCOMERS * ready:
            pass  # The new replicas may be slow at first, so this is not the limit of a replica.
        elif busy_now < usual and has_free_workers(new, MAX_LOCAL_WAIT):
            pass  # Requests wait at some replicas only.
        elif saturated and busy_now < usual and may_have_slow_replicas(new):
            pass  # The new replicas may still be slow.
        elif busy_now < SLOWDOWN_RATIO * usual:
            # A replica has as many workers as before, so its requests take longer than before.
            missing = usual / busy_now - 1.0
            slowdown *= 1.0 + SLOWDOWN_WEIGHT * min(missing, MAX_SLOWDOWN)
            abrupt = True
        elif saturated:
            fast = busy_now > bound
            bound += (FAST_BOUND_WEIGHT if fast else SLOW_BOUND_WEIGHT) * (busy_now - bound)
            if busy_now < MIN_WORKERS:
                # No replica has less than one worker, so its requests take longer than before.
                missing = MIN_WORKERS / busy_now - 1.0
                service *= 1.0 + SLOWDOWN_WEIGHT * min(missing, MAX_SLOWDOWN)
        else:
            # New replicas may be slow at first: then the others answered all of it.
            others = busy_now * ready / max(ready - new.newcomers, 1.0)
            bound, saturated = max(min(others, bound), busy_now, proven), True
    elif sample > proven:
        proven += weight * (sample - proven)
    elif wait > WAITING and not slower and not saturated and busy > NEAR_PROVEN * proven:
        proven += weight * min(wait, MAX_WAIT_WEIGHT) * (sample - proven)
    if not saturated:
        # Before a first start-up it is not known how long a mistake would last.
        chance = CHANCE_DEVIATIONS / sqrt(new.completions) if new.started else 0.0
        certain_wait = max(0.0, wait - chance)
        assumed = busy * (1.0 + ASSUMED_RATIO / (1.0 + PROBE_WAIT_FACTOR * certain_wait))
        explained = slower and busy * slowdown < NEAR_BOUND * bound
        if assumed > bound:
            bound += weight * (assumed - bound)
        elif busy > NEAR_PROVEN * proven and not explained:
            bound += weight * min(wait / WAITING, 1.0) * (assumed - bound)
    elif sample > bound and wait < CALM_WAIT:
        bound += RAISE_BOUND_SHARE * weight * (sample - bound)
    # Without a queue, more workers have been busy than an assumption says.
    bound = max(bound, MIN_WORKERS if saturated else proven)
    proven = max(min(proven, bound), MIN_WORKERS)
    return replace(
        new,
        service_time=service,
        answers=answers,
        proven=proven,
        bound=bound,
        saturated=saturated,
        spread=spread,
        slowdown=slowdown,
        abrupt=abrupt,
    )


def _learn_slowdown(new: CapacityEstimate, service: float, mean: float, slower: bool) -> float:
    """Return the factor by which all requests take longer than the service time. It follows the
    latency while this has the usual spread, and is never above what the latency shows. A rise by
    `LIKE_SPREAD` may be waiting."""
    seen = max(1.0, mean / (service * (1.0 + LIKE_SPREAD)))
    if slower:
        return min(seen, new.slowdown + DRIFT_WEIGHT * (seen - new.slowdown))
    return min(seen, new.slowdown)


def _quick(capacity: CapacityEstimate) -> float:
    """Return the latency that `QUICK_SHARE` of the recent answers did not exceed."""
    return capacity.quick / capacity.completions


def _all_take_longer(new: CapacityEstimate, mean: float) -> bool:
    """Return whether all requests take longer by the same factor, as they do if the service is
    slower. Waiting adds about the same time to each instead."""
    if new.spread < MIN_SPREAD or not new.quick:
        return False
    return abs(mean / (new.spread * _quick(new)) - 1.0) < LIKE_SPREAD


def _quick_latency(signal: Signal) -> float:
    """Return the latency that `QUICK_SHARE` of the answers of one second do not exceed."""
    left = QUICK_SHARE * sum([count for _, count in signal.latency])
    for upper, count in signal.latency:
        left -= count
        if left <= 0.0:
            return upper
    return 0.0


def _learn_spread(new: CapacityEstimate, mean: float, signal: Signal) -> float:
    """Return the ratio of the mean latency to the quick one with one more idle second."""
    quick = _quick_latency(signal)
    if quick <= 0.0 or signal.downstream_sum:
        return new.spread  # The histogram contains the time of own calls.
    sample = max(mean / quick, 1.0)
    if not new.spread:
        return sample if signal.completions >= FEW_ANSWERS else 0.0
    weight = SPREAD_WEIGHT * signal.completions / (signal.completions + HALF_WEIGHT_ANSWERS)
    return new.spread + weight * (sample - new.spread)


def _learn_service_time(
    new: CapacityEstimate, mean: float, done: int, idle: bool, first: bool
) -> tuple[float, float]:
    """Return the service time, and the number of answers it is the mean of.

    At first (`first`) it is the mean of all answers. Later it falls quickly to a lower latency. It
    rises while replicas are too idle to queue, and otherwise very slowly. What chance explains is
    not lower: otherwise few answers, whose mean varies, would pull it down.
    """
    old, answers = new.service_time, new.answers
    if not old:
        return max(mean, MIN_SERVICE_TIME), float(done)
    chance = CHANCE_DEVIATIONS / sqrt(done)
    if idle and not first and mean > old and has_free_workers(new):
        # Some replicas are slow, and not the service. A few answers may be long ones by chance.
        more = MAX_QUICK_WAIT + (chance if done < MANY_ANSWERS else 0.0)
        mean = min(mean, max(old, (1.0 + more) * new.spread * _quick(new)))
    if mean < old or idle or first:
        largest = FALL_WEIGHT if mean < (1.0 - chance) * old else RISE_WEIGHT
        weight = largest * done / (done + FULL_WEIGHT_ANSWERS)
        weight = max(weight, done / (answers + done)) if answers < KNOWN_ANSWERS else weight
        service = max(old + weight * (mean - old), MIN_SERVICE_TIME)
        return service, min(answers + done, KNOWN_ANSWERS)
    return old + min(mean - old, CREEP * old), answers


def _learn_startup(old: float, count: int, startups: tuple[float, ...]) -> float:
    """Return about the 85th percentile of the start-up times, with `startups` added to the `count`
    known ones. To start too late costs more than to start too early."""
    value = old
    for number, startup in enumerate(startups, start=count + 1):
        late = startup > value or number == 1
        first, later = (FIRST_LATE, LATER_LATE) if late else (FIRST_EARLY, LATER_EARLY)
        value += max(later, first / number) * (startup - value)
    return min(max(value, MIN_STARTUP), MAX_STARTUP)


def _track_starts(old: tuple[float, ...], signal: Signal) -> tuple[float, ...]:
    """Return for how long each start that is under way lasts at least (seconds), the longest first.
    Orders are cancelled from the newest on."""
    ages = [age + signal.interval for age in old]
    for startup in signal.startups + signal.wakes:
        if ages:
            ages.remove(min(ages, key=lambda age: abs(age - startup)))
    count = min(signal.starting, MAX_TRACKED)
    return (*ages[:count], *(0.0 for _ in range(count - len(ages))))


def _plan_startup(startup: float, count: int, starting: tuple[float, ...]) -> float:
    """Return `startup`, from `count` replicas, as it would be if the starts that have lasted longer
    ended now: they take at least that long."""
    value = startup
    for age in starting:
        if value < age <= MAX_STARTUP:
            count += 1
            value = _learn_startup(value, count - 1, (age,))
    return value


def _learn_downstream(old: float, each: float) -> float:
    if not old:
        return each
    high = each >= HIGH_DOWNSTREAM_RATIO * old
    return old + (HIGH_DOWNSTREAM_WEIGHT if high else DOWNSTREAM_WEIGHT) * (each - old)
