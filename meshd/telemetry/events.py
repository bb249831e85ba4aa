"""The words that events are named by, and how log lines look.

Log lines are for people where they are read by people: coloured and aligned on a terminal,
one JSON object a line otherwise, so that a collector needs no parser.
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
        Kind.ADOPT_FAILED,
        Kind.CLAIM_REFUSED,
        Kind.LISTEN_FAILED,
        Kind.SNAPSHOT_REFUSED,
        Kind.FILTER_OFF,
        Kind.RUNTIME_LOST,
    }
)
"""Kinds that somebody may want to look into."""
