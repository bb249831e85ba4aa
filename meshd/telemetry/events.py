"""Which kinds of events are bad news. Pure.

`meshd.logging_setup` and the commands use it to choose a log level or a colour.
"""

from typing import Final

from meshd.model.event import Kind

BAD: Final = frozenset(
    {
        Kind.REPLICA_UNHEALTHY,
        Kind.REPLICA_DIED,
        Kind.REPLICA_CRASH_LOOP,
        Kind.REPLICA_FAILED,
        Kind.ENDPOINT_EJECTED,
        Kind.ROLLOUT_FAILED,
        Kind.ROLLOUT_ROLLED_BACK,
        Kind.JOB_FAILED,
        Kind.WORKER_REPLACED,
        Kind.WORKER_SHORT,
        Kind.CONTROL_RESTARTED,
        Kind.ADOPT_FAILED,
        Kind.CLAIM_REFUSED,
        Kind.LISTEN_FAILED,
        Kind.SNAPSHOT_REFUSED,
        Kind.FILTER_OFF,
        Kind.ENFORCE_OFF,
        Kind.OBJECTIVE_BURNING,
        Kind.SERVICE_UNAVAILABLE,
        Kind.DISK_FILLING,
        Kind.NODE_LOST,
        Kind.RUNTIME_LOST,
        Kind.STATE_LOST,
    }
)
"""Kinds that an operator may need to look into."""
