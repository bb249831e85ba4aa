"""Events of the event log and their kinds. Pure.

`meshd.store.events` keeps them, and the API and `meshd events` show them.
"""

from enum import StrEnum
from typing import Final

import msgspec

from meshd.model.base import Value


class Kind(StrEnum):
    """Kind of an event. A kind is never renamed: scripts and alerts rely on it."""

    DEPLOY = "deploy"
    DOWN = "down"
    ADOPTED = "adopted"
    ADOPT_FAILED = "adopt.failed"
    CLAIM_REFUSED = "claim.refused"
    REPLICA_STARTED = "replica.started"
    REPLICA_READY = "replica.ready"
    REPLICA_PAUSED = "replica.paused"
    REPLICA_UNHEALTHY = "replica.unhealthy"
    REPLICA_UNREADY = "replica.unready"
    REPLICA_DIED = "replica.died"
    HOOK_FAILED = "replica.hook-failed"
    REPLICA_COMPLETED = "replica.completed"
    REPLICA_CRASH_LOOP = "replica.crash-loop"
    REPLICA_FAILED = "replica.failed"
    REPLICA_DRAINING = "replica.draining"
    REPLICA_STOPPED = "replica.stopped"
    ENDPOINT_EJECTED = "endpoint.ejected"
    SERVICE_RESTART = "service.restart"
    SCALE_UP = "scale.up"
    SCALE_DOWN = "scale.down"
    SCALE_OVERRIDE = "scale.override"
    SCALE_WAKE = "scale.wake"
    SCALE_SHORT = "scale.short"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_SHIFTED = "rollout.shifted"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_DONE = "rollout.done"
    ROLLOUT_FAILED = "rollout.failed"
    ROLLOUT_ROLLED_BACK = "rollout.rolled-back"
    VOLUME_BACKUP = "volume.backup"
    VOLUME_RESTORE = "volume.restore"
    VOLUME_REMOVED = "volume.removed"
    VOLUME_RESUMED = "volume.resumed"
    VOLUME_RESUME_FAILED = "volume.resume-failed"
    JOB_WAITING = "job.waiting"
    JOB_STARTED = "job.started"
    JOB_DONE = "job.done"
    JOB_FAILED = "job.failed"
    JOB_SKIPPED = "job.skipped"
    WORKER_REPLACED = "worker.replaced"
    WORKER_SHORT = "worker.short-of-descriptors"
    RECORD_SAVED = "record.saved"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_RENEWED = "certificate.renewed"
    CERTIFICATE_FAILED = "certificate.failed"
    CERTIFICATE_EXPIRING = "certificate.expiring"
    CONTROL_RESTARTED = "control.restarted"
    CLOCK_SET = "clock.set"
    STATE_LOST = "state.lost"
    STATE_BACK = "state.back"
    LISTEN_FAILED = "listen.failed"
    SNAPSHOT_REFUSED = "snapshot.refused"
    FILTER_OFF = "filter.off"
    FILTER_ON = "filter.on"
    ENFORCE_OFF = "enforce.off"
    ENFORCE_ON = "enforce.on"
    ADDRESSES_OFF = "addresses.off"
    ADDRESSES_ON = "addresses.on"
    PORT_GAP = "port.gap"
    NODE_LOST = "node.lost"
    NODE_BACK = "node.back"
    NODE_CORDONED = "node.cordoned"
    NODE_DRAINING = "node.draining"
    NODE_DRAINED = "node.drained"
    NODE_DRAIN_FAILED = "node.drain-failed"
    NODE_UNCORDONED = "node.uncordoned"
    NODE_JOINED = "node.joined"
    NODE_REMOVED = "node.removed"
    NODE_PROXY_CONNECTED = "node.proxy-connected"
    NODE_PROXY_LOST = "node.proxy-lost"
    REBALANCE_STARTED = "rebalance.started"
    REBALANCE_DONE = "rebalance.done"
    OBJECTIVE_BURNING = "objective.burning"
    OBJECTIVE_MET = "objective.met"
    SERVICE_UNAVAILABLE = "service.unavailable"
    SERVICE_AVAILABLE = "service.available"
    DISK_FILLING = "disk.filling"
    DISK_FREE = "disk.free"
    RUNTIME_LOST = "runtime.lost"
    RUNTIME_BACK = "runtime.back"


SCALE: Final = "scale."
ROLLOUT: Final = "rollout."
JOB: Final = "job."
"""Prefixes of kinds that belong together."""


class Event(Value, frozen=True):
    """One event, with its cause.

    - `at`: Unix time in seconds.
    - `kind`: a word of `Kind`.
    - `replica`: the replica that it is about; without a service, the node or disk.
    - `text`: what happened and why, for people.
    - `numbers`: the numbers that it was decided from.
    """

    id: int
    at: float
    kind: str
    project: str = ""
    service: str = ""
    replica: str = ""
    text: str = ""
    numbers: dict[str, float] = msgspec.field(default_factory=dict)
