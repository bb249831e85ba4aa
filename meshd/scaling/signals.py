"""What a second of a service looked like, put together for the autoscaler. Pure."""

from collections.abc import Sequence
from typing import Final

from autoscaler import Signal
from meshd.reconcile.desired import DesiredService
from meshd.reconcile.memory import Replica
from meshd.reconcile.phase import Phase
from meshd.telemetry.merge import MergedService

_STARTING: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


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
