"""Saves what the flight recorder of this worker holds, when the control process asks for it.

Owned by `worker`. The control process makes a directory `ID` in a directory of the state, with an
`order.json`; each worker writes `worker-N.jsonl.gz` next to it, one `Flight` per line. The
directory is looked at once a second. `meshd.store.flight_records` is the other side.
"""

import asyncio
import contextlib
import gzip
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from proxy.observe.access_log import hidden_names
from proxy.observe.flight import RecordOrder, describe_flight
from proxy.observe.flight_ring import FlightRecord, FlightRing

ORDER: Final = "order.json"
VALID_SECONDS: Final = 10.0
"""Age of an order that a worker still follows: one that has just started has nothing of interest
to an older one."""
_BATCH: Final = 100
"""Records that are encoded before requests are served again: about 2 ms."""
_COMPRESSION: Final = 1
"""Level of gzip: the lines are so alike that it makes them ten times smaller."""


class FlightFiles:
    """Follows orders to save the records of `ring`.

    - `worker`: the worker's number.
    - `query`: as in `proxy.ipc.config.LogConfig`.
    - `algorithms`: returns the balancing algorithm of each service.
    """

    def __init__(
        self,
        directory: str,
        worker: int,
        ring: FlightRing,
        query: bool | tuple[str, ...],
        algorithms: Callable[[], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory)
        self._worker = worker
        self._ring = ring
        self._hidden = None if query is True or query == () else hidden_names(query)
        self._algorithms = algorithms
        self._clock = clock
        self._seen: set[str] = set()
        self._saving: set[asyncio.Task[None]] = set()

    def refresh(self) -> None:
        """Begin to follow new orders."""
        try:
            names = {name for name in os.listdir(self._directory) if not name.startswith(".")}
        except OSError:
            names = set()
        for name in sorted(names - self._seen):
            order = _read_order(self._directory / name / ORDER)
            if order is not None and time.time() - order.at < VALID_SECONDS:
                task = asyncio.ensure_future(self.save(name, order))
                self._saving.add(task)
                task.add_done_callback(self._saving.discard)
        self._seen = names

    async def save(self, name: str, order: RecordOrder) -> None:
        """Write the records that an order asks for. Without any, no file is written."""
        ports = order.service + ":"
        records = [
            record
            for record in self._ring.flights()
            if not order.service
            or record.service == order.service
            or record.service.startswith(ports)
        ]
        if not records:
            return
        lines = await self._encode(records)
        path = self._directory / name / f"worker-{self._worker}.jsonl.gz"
        try:
            await asyncio.to_thread(_write, path, lines)
        except OSError as error:
            print(f"worker {self._worker}: flight record: {error}", file=sys.stderr)

    async def _encode(self, records: list[FlightRecord]) -> bytes:
        """Encode in batches, between which requests are served."""
        offset, algorithms = time.time() - self._clock(), self._algorithms()
        lines: list[bytes] = []
        for number, record in enumerate(records):
            algorithm = algorithms.get(record.service, "")
            flight = describe_flight(record, algorithm, offset, self._hidden)
            lines.append(msgspec.json.encode(flight))
            if number % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        return b"\n".join(lines)


def _read_order(path: Path) -> RecordOrder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RecordOrder)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, lines: bytes) -> None:
    """Write a compressed file, whole or not at all. Raises OSError."""
    made = path.with_name(f".{path.name}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(gzip.compress(lines, _COMPRESSION))
        made.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            made.unlink()
        raise
