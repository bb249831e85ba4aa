"""Log set-up: coloured lines on a terminal, one JSON object per line otherwise.

Called once at the start of each process of meshd: the control process (`meshd.daemon.main`), the
keeper (`meshd.runtime.process.keeper`) and the helper of `meshd proxy` (`meshd.standalone`). The
proxy sets up its own log in `proxy.__main__`.
"""

import logging
import os
import shutil
import stat
import sys
from typing import Final, TextIO

import structlog

LOG_LIMIT: Final = 20 * 1024 * 1024
"""Bytes of a log file before it is moved to `NAME.1`."""


def set_up_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the log lines of structlog and of the standard library to `stream` (default: standard
    error): readable lines on a terminal, JSON otherwise. `level` is a name of `logging`.
    Raises ValueError for an unknown level."""
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
    """Keep a log file that was opened for appending from filling the disk. At `LOG_LIMIT` bytes
    the file is copied to `NAME.1` and truncated; it is not renamed, because other processes
    write to it too."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            descriptor = self.stream.fileno()
        except (OSError, ValueError):
            return  # not a regular file
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
