"""The words that events are named by, and how log lines look.

Log lines are for people where they are read by people: coloured and aligned on a terminal,
one JSON object a line otherwise, so that a collector needs no parser.
"""

import logging
import os
import shutil
import stat
import sys
from enum import StrEnum
from typing import Final, TextIO

import structlog


class Kind(StrEnum):
    """What can happen. A kind is never renamed: scripts and alerts rely on it."""

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
    REPLICA_CRASH_LOOP = "replica.crash-loop"
    REPLICA_FAILED = "replica.failed"
    REPLICA_DRAINING = "replica.draining"
    REPLICA_STOPPED = "replica.stopped"
    ENDPOINT_EJECTED = "endpoint.ejected"
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
    JOB_WAITING = "job.waiting"
    JOB_STARTED = "job.started"
    JOB_DONE = "job.done"
    JOB_FAILED = "job.failed"
    JOB_SKIPPED = "job.skipped"
    WORKER_REPLACED = "worker.replaced"
    LISTEN_FAILED = "listen.failed"
    SNAPSHOT_REFUSED = "snapshot.refused"
    FILTER_OFF = "filter.off"
    FILTER_ON = "filter.on"
    RUNTIME_LOST = "runtime.lost"
    RUNTIME_BACK = "runtime.back"


LOG_LIMIT: Final = 20 * 1024 * 1024
SCALE: Final = "scale."
ROLLOUT: Final = "rollout."
JOB: Final = "job."
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


def set_up_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends structlog's and the standard library's log lines to `stream` (standard error):
    human lines where it is a terminal, JSON otherwise. `level` is a name of `logging`.

    Raises ValueError for a level that does not exist.
    """
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = _Bounded(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _Bounded(logging.StreamHandler[TextIO]):
    """Keeps a log file that was opened for appending, by us or by whoever started us, from
    filling the disk: at `LOG_LIMIT` bytes it is moved to `NAME.1` and starts anew. It is
    copied and cut, not renamed, for other processes write to it as well."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            descriptor = self.stream.fileno()
        except (OSError, ValueError):
            return  # not a file at all
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size > LOG_LIMIT:
            try:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                shutil.copyfile(path, path + ".1")
                os.ftruncate(descriptor, 0)
            except OSError:
                self.handleError(record)


def _rendering(terminal: bool) -> list[structlog.typing.Processor]:
    if terminal:
        return [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=True, pad_event_to=0),
        ]
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
