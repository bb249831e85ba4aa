"""Records of the flight recorder, in directories of the state directory.

`meshd.control.recorder` uses it. A record is a directory with an order, in which each proxy worker
writes one file; `proxy.worker.flight_files` describes them. At most `RECORDS_KEPT` are kept, and
the size of a file is bounded by the memory of a worker.
"""

import gzip
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from meshd.model.errors import NotFound, StoreWriteError
from proxy.observe.flight import Flight, RecordInfo, RecordOrder

DIRECTORY: Final = "records"
"""Name of the directory in the state directory."""
ORDER: Final = "order.json"
"""The file with the order of a record; `proxy.worker.flight_files` reads it."""
RECORDS_KEPT: Final = 20
"""Records that are kept; each takes about 100 KiB per worker."""
MAX_FILE: Final = 32 * 1024 * 1024
"""Bytes of one worker's lines that are read: more than the largest file has."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_flight: Final = msgspec.json.Decoder(Flight)


class FlightRecords:
    """Directories DIRECTORY/ID."""

    def __init__(self, state: Path) -> None:
        self._directory = state / DIRECTORY

    def create(self, order: RecordOrder) -> RecordInfo:
        """Order the workers to save what they have recorded, and delete the oldest records. Raises
        StoreWriteError."""
        stamp = datetime.fromtimestamp(order.at, UTC).strftime("%Y%m%d-%H%M%S")
        base = f"{stamp}-{_UNSAFE.sub('_', order.service)[:150] or 'all'}"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            id = self._free_id(base)
            made = self._directory / f".{id}"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(mode=0o700)
            path = made / ORDER
            path.touch(mode=0o600)
            path.write_bytes(msgspec.json.encode(order))
            made.rename(self._directory / id)
            for old in self._ids()[:-RECORDS_KEPT]:
                shutil.rmtree(self._directory / old, ignore_errors=True)
        except OSError as error:
            raise StoreWriteError(f"the state cannot be written: {error}") from error
        return RecordInfo(id, order.at, order.service, order.reason)

    def list(self) -> Sequence[RecordInfo]:
        """Return all records, newest first."""
        return [found for id in reversed(self._ids()) if (found := self._info(id)) is not None]

    def find(self, id: str) -> RecordInfo:
        """Return a record. Raises NotFound."""
        found = self._info(id) if _ID.fullmatch(id) else None
        if found is None:
            raise NotFound(f"there is no record {id!r}; `meshd record list` lists them")
        return found

    def read(self, id: str) -> Sequence[Flight]:
        """Return the requests of a record, oldest first. Lines that cannot be read are left out.
        Raises NotFound."""
        folder = self._directory / self.find(id).id
        found = [flight for path in folder.glob("worker-*.gz") for flight in _read(path)]
        return sorted(found, key=lambda flight: flight.request.time)

    def _ids(self) -> Sequence[str]:
        """All ids, which begin with the time, oldest first."""
        try:
            return sorted(path.name for path in self._directory.iterdir() if path.name[0] != ".")
        except OSError:
            return []

    def _free_id(self, base: str) -> str:
        number, id = 1, base
        while (self._directory / id).exists():
            number += 1
            id = f"{base}-{number}"
        return id

    def _info(self, id: str) -> RecordInfo | None:
        folder = self._directory / id
        try:
            order = msgspec.json.decode((folder / ORDER).read_bytes(), type=RecordOrder)
            sizes = [path.stat().st_size for path in folder.glob("worker-*.gz")]
        except (OSError, msgspec.MsgspecError):
            return None
        return RecordInfo(id, order.at, order.service, order.reason, len(sizes), sum(sizes))


def _read(path: Path) -> Iterator[Flight]:
    try:
        with gzip.open(path) as file:
            lines = file.read(MAX_FILE).splitlines()
    except (OSError, EOFError, zlib.error):
        return
    for line in lines:
        try:
            yield _flight.decode(line)
        except msgspec.MsgspecError:
            continue
