"""What a second of a service looked like, put together for the autoscaler. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from autoscaler import Signal
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.scaling import Load, cpu_percent
from meshd.telemetry.merge import Distribution, MergedService
from proxy.wire import buckets

FAST: Final = 0.1
_STARTING: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


def signal_of(
    service: DesiredService,
    replicas: Sequence[Replica],
    second: MergedService | None,
    downstream: float,
    loads: Mapping[str, Load],
    ejected: int,
    since: float,
    external: float | None = None,
    scheduled: int = 0,
) -> Signal | None:
    """One second of a service; None when nothing is known of it. `downstream` are the seconds
    that its calls to other services took (see `waited`). Replicas that a rollout adds for a
    while are not counted, and those that got ready after `since` tell their start-up."""
    if second is None or not second.interval:
        return None
    worked = without_fast_failures(second)
    current = [r for r in replicas if service.adopted or r.revision == service.revision]
    rolling = service.rollout.is_rolling and len(current) != len(replicas)
    ready = sum(r.serves for r in replicas)
    return Signal(
        interval=second.interval,
        arrivals=second.arrivals,
        completions=worked.count,
        in_flight=second.in_flight,
        latency=worked.upper_bounds(),
        latency_sum=worked.sum,
        queue_sum=second.queue.sum,
        downstream_sum=downstream,
        errors=second.errors,
        shed=second.shed,
        parked=second.parked,
        ready=min(ready, service.desired) if rolling else ready,
        starting=0 if rolling else sum(_starts(r) for r in replicas),
        draining=sum(r.phase is Phase.DRAINING for r in replicas),
        ejected=ejected,
        startups=tuple(
            r.ready_since - r.created_at
            for r in replicas
            if r.ready_since > since and r.created_at and not r.resumed_at
        ),
        wakes=tuple(
            r.ready_since - r.resumed_at for r in replicas if r.ready_since > since and r.resumed_at
        ),
        cpu=_cpu(service, replicas, loads),
        external=external,
        scheduled=scheduled,
        busy=rolling,
    )


def waited(seconds: Iterable[MergedService]) -> dict[str, float]:
    """How long each caller (`PROJECT/SERVICE`) waited for other services in that second of all
    of them, calls at the same time added up."""
    sums: dict[str, float] = {}
    for second in seconds:
        for caller, spent in second.call_seconds.items():
            sums[caller] = sums.get(caller, 0.0) + spent
    return sums


def _starts(replica: Replica) -> bool:
    """Whether it is on its way to serve, and not to be kept for later."""
    if replica.warm:
        return False
    return replica.phase in _STARTING or bool(replica.phase is Phase.PAUSED and replica.resumed_at)


def without_fast_failures(second: MergedService) -> Distribution:
    """The latencies of answers that somebody worked for. What failed in less time than a good
    answer takes was not worked on, and would make a sick service look like a quick one. Where
    nothing is good, that is what took less than `FAST`."""
    good = {
        bucket: count - second.failed.counts.get(bucket, 0)
        for bucket, count in second.total.counts.items()
    }
    worked = Distribution(dict(good), second.total.sum)
    total = sum(good.values())
    mean = (second.total.sum - second.failed.sum) / total if total else FAST
    for bucket, count in second.failed.counts.items():
        if buckets.upper_bound(bucket) >= mean:
            worked.counts[bucket] = worked.counts.get(bucket, 0) + count
        else:
            worked.sum -= count * buckets.upper_bound(bucket)
    worked.counts = {bucket: count for bucket, count in worked.counts.items() if count > 0}
    worked.sum = max(0.0, worked.sum)
    return worked


def _cpu(
    service: DesiredService, replicas: Sequence[Replica], loads: Mapping[str, Load]
) -> float | None:
    """Mean percent of the limit over ready replicas; None where none is known."""
    limit = service.spec.resources.cpus
    known = [
        percent
        for replica in replicas
        if replica.phase is Phase.READY
        and (percent := cpu_percent(loads.get(replica.name), limit)) is not None
    ]
    return sum(known) / len(known) if known else None
