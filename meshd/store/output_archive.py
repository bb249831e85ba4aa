"""The output of replicas that have ended, in files of the state directory.

`meshd.reconcile.execute.results` saves what a replica wrote before it is removed;
`meshd.control.log_tail` reads it for `meshd logs --previous`. Bounded: `REPLICAS_KEPT` files of
each service, and `FILE_BYTES` of each replica.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from meshd.model.output import OutputLine

_log = structlog.stdlib.get_logger(__name__)
DIRECTORY: Final = "output"
"""Name of the archive's directory in the state directory."""
LINES_KEPT: Final = 5000
"""Last lines of a replica that are kept: enough for what led to a crash, also with verbose logs."""
FILE_BYTES: Final = 1024 * 1024
"""Bytes of lines that are kept of a replica; the oldest lines are left out."""
REPLICAS_KEPT: Final = 20
"""Ended replicas of a service whose output is kept: a night of restarts with backoff."""
SERVICES_KEPT: Final = 200
"""Services whose output is kept, those of removed projects included."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")

_encoder = msgspec.json.Encoder()
_lines: msgspec.json.Decoder[tuple[float, str]] = msgspec.json.Decoder(tuple[float, str])


class OutputArchive:
    """Files DIRECTORY/PROJECT.SERVICE/ENDED.REPLICA.jsonl, one line of output per line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(
        self, project: str, service: str, replica: str, ended: float, lines: Sequence[OutputLine]
    ) -> None:
        """Keep the output of a replica that ended at `ended` (Unix time), in place of what was kept
        of it before: a removal that failed is repeated. An error is logged: a full disk must not
        keep a replica from being removed."""
        kept: list[bytes] = []
        size = 0
        for line in reversed(lines[-LINES_KEPT:]):
            encoded = _encoder.encode(line) + b"\n"
            size += len(encoded)
            if size > FILE_BYTES:
                break
            kept.append(encoded)
        folder = self._folder(project, service)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            name = _UNSAFE.sub("_", replica)
            path = folder / f"{ended:013.2f}.{name}.jsonl"
            path.write_bytes(b"".join(reversed(kept)))
            for earlier in folder.iterdir():
                if earlier != path and _replica_of(earlier) == name:
                    earlier.unlink(missing_ok=True)
            for old in sorted(folder.iterdir())[:-REPLICAS_KEPT]:
                old.unlink(missing_ok=True)
            self._drop_oldest_services()
        except OSError as error:
            _log.warning("output of a replica not kept", replica=replica, error=str(error))

    def read(self, project: str, service: str) -> list[tuple[str, list[OutputLine]]]:
        """Return the kept replicas of a service by name with their lines, the last ended last."""
        folder = self._folder(project, service)
        try:
            files = sorted(folder.iterdir())
        except OSError:
            return []
        return [(_replica_of(file), _read_file(file)) for file in files]

    def _folder(self, project: str, service: str) -> Path:
        return self._directory / _UNSAFE.sub("_", f"{project}.{service}")

    def _drop_oldest_services(self) -> None:
        folders = list(self._directory.iterdir())
        if len(folders) <= SERVICES_KEPT:
            return
        for folder in sorted(folders, key=lambda each: each.stat().st_mtime)[:-SERVICES_KEPT]:
            for file in folder.iterdir():
                file.unlink(missing_ok=True)
            folder.rmdir()


def _replica_of(file: Path) -> str:
    return file.name.removesuffix(".jsonl").split(".", 2)[2]


def _read_file(file: Path) -> list[OutputLine]:
    found = []
    try:
        for line in file.read_bytes().splitlines():
            at, text = _lines.decode(line)
            found.append(OutputLine(at, text))
    except (OSError, msgspec.MsgspecError) as error:
        found.append(OutputLine(0.0, f"(the rest cannot be read: {error})"))
    return found
