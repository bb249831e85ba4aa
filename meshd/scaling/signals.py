"""The last second of a service → the signal of the autoscaler. Pure.

`meshd.scaling.controller` calls `signal_of` for every service, with the merged reports of
`meshd.telemetry.ingest` and the replicas of `meshd.reconcile`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from autoscaler import Signal
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.scaling import Load, cpu_percent
from meshd.telemetry.merge import Distribution, MergedService
from proxy.wire import buckets

FAST_FAILURE: Final = 0.1
"""Seconds below which a failure counts as fast while no good answer is known: a refused connection
takes milliseconds, and most work takes longer."""
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
    """Return one second of a service; None without data.

    - `downstream`: seconds that it waited for its own calls (see `call_seconds_by_caller`).
    - `loads`: CPU and memory by replica.
    - `ejected`: endpoints that a worker has ejected.
    - `since`: time of the last signal (Unix time); replicas ready after it report their start-up.
    - `external`: value of the Prometheus query; `scheduled`: replicas that a schedule asks for.

    Replicas that a rollout adds temporarily do not count.
    """
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
        in_flight=second.load_in_flight,
        streams=second.mean_streams,
        latency=worked.upper_bounds(),
        latency_sum=worked.sum,
        queue_sum=second.queue.sum,
        downstream_sum=downstream,
        errors=second.errors,
        shed=second.shed,
        parked=second.parked,
        ready=min(ready, service.desired) if rolling else ready,
        starting=0 if rolling else sum(_is_starting(r) for r in replicas),
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
        cpu=_mean_cpu_percent(service, replicas, loads),
        external=external,
        scheduled=scheduled,
        busy=rolling,
    )


def call_seconds_by_caller(seconds: Iterable[MergedService]) -> dict[str, float]:
    """Return how long each caller (`PROJECT/SERVICE`) waited for other services, from one second of
    all services. Calls at the same time add up."""
    sums: dict[str, float] = {}
    for second in seconds:
        for caller, spent in second.call_seconds.items():
            sums[caller] = sums.get(caller, 0.0) + spent
    return sums


def without_fast_failures(second: MergedService) -> Distribution:
    """Return the latencies of answers that a replica worked on.

    A failure faster than the mean good answer was not worked on, and would make a failing service
    look fast. Without good answers the threshold is `FAST_FAILURE`.
    """
    good = {
        bucket: count - second.failed.counts.get(bucket, 0)
        for bucket, count in second.total.counts.items()
    }
    worked = Distribution(dict(good), second.total.sum)
    total = sum(good.values())
    mean = (second.total.sum - second.failed.sum) / total if total else FAST_FAILURE
    for bucket, count in second.failed.counts.items():
        if buckets.upper_bound(bucket) >= mean:
            worked.counts[bucket] = worked.counts.get(bucket, 0) + count
        else:
            worked.sum -= count * buckets.upper_bound(bucket)
    worked.counts = {bucket: count for bucket, count in worked.counts.items() if count > 0}
    worked.sum = max(0.0, worked.sum)
    return worked


def _is_starting(replica: Replica) -> bool:
    """Return whether a replica is about to serve; one that starts for the warm pool is not."""
    if replica.warm:
        return False
    return replica.phase in _STARTING or bool(replica.phase is Phase.PAUSED and replica.resumed_at)


def _mean_cpu_percent(
    service: DesiredService, replicas: Sequence[Replica], loads: Mapping[str, Load]
) -> float | None:
    """Return the mean CPU use of the ready replicas in percent of their limit; None if unknown."""
    limit = service.spec.resources.cpus
    known = [
        percent
        for replica in replicas
        if replica.phase is Phase.READY
        and (percent := cpu_percent(loads.get(replica.name), limit)) is not None
    ]
    return sum(known) / len(known) if known else None
