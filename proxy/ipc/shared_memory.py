"""What workers know together without talking: one shared memory, and no locks.

An anonymous memory holds a row for each worker. Only the worker itself writes to its row; the
others read all rows and put together what they find. A cell is guarded by the key of what it was
claimed for, written last when claimed and cleared first when released: a reader reads the value,
then the key, and takes the value only when the key is still the one it wants. The supervisor
clears the row of a worker that died, so what it held comes back.

| cell | of an endpoint | of a service |
| --- | --- | --- |
| `in_flight` | requests under way | requests under way |
| `held` | connections | requests that wait |
| `bytes` | | held for requests that wait |
| `latency` | seconds | since when its oldest waits (monotonic seconds, 0.0: none do) |

Behind them a row has buckets, for the keys of rate limits: a table by hash of so many ways,
whose oldest entry gives way. A bucket's value is when it will be full again; the latest of all
rows holds, because a worker reads the others' before it writes its own.
"""

import mmap
import os
import tempfile
from typing import Final

from proxy.policy.hashing import hash_key

SLOTS: Final = 4096
BUCKETS: Final = 16384
WAYS: Final = 4
_CELL: Final = 8


class SharedCells:
    """The whole memory. Made by the supervisor, attached by each worker through the inherited
    file descriptor. `workers` counts the rows, `slots` the endpoints and services of a row."""

    def __init__(self, fd: int, workers: int, slots: int = SLOTS) -> None:
        self.fd = fd
        self.workers = workers
        self.slots = slots
        self._memory = mmap.mmap(fd, size(workers, slots))
        self._end = 0
        cells = workers * slots
        # A row's version changes whenever its keys do.
        self.versions = self._part(workers).cast("Q")
        self.keys = self._part(cells).cast("Q")
        self.in_flight = self._part(cells).cast("q")
        self.held = self._part(cells).cast("q")
        self.bytes = self._part(cells).cast("q")
        self.latency = self._part(cells).cast("d")
        self.bucket_keys = self._part(workers * BUCKETS).cast("Q")
        self.full_at = self._part(workers * BUCKETS).cast("d")

    def _part(self, count: int) -> memoryview:
        start, self._end = self._end, self._end + count * _CELL
        return memoryview(self._memory)[start : self._end]

    @classmethod
    def create(cls, workers: int, slots: int = SLOTS) -> "SharedCells":
        """New, zeroed memory, whose descriptor children may inherit (`pass_fds`)."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("meshd-cells")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size(workers, slots))
        return cls(fd, workers, slots)

    def clear(self, worker: int) -> None:
        """Forgets a worker that is dead. Nobody else may write to a row of a living one."""
        first, last = worker * self.slots, (worker + 1) * self.slots
        for slot in range(first, last):
            if self.keys[slot]:
                self.keys[slot] = 0
                self.in_flight[slot] = self.held[slot] = self.bytes[slot] = 0
                self.latency[slot] = 0.0
        for bucket in range(worker * BUCKETS, (worker + 1) * BUCKETS):
            if self.bucket_keys[bucket]:
                self.bucket_keys[bucket] = 0
        self.versions[worker] += 1

    def row(self, worker: int) -> "WorkerRow":
        """The row of `worker`, to be held by it alone."""
        return WorkerRow(self, worker)


class WorkerRow:
    """One worker's own cells, and its view of the others'.

    The owner writes the cells of a slot that it claimed; `sync` finds those that other workers
    have for the same, and is cheap when nothing changed.
    """

    def __init__(self, cells: SharedCells, worker: int) -> None:
        first, last = worker * cells.slots, (worker + 1) * cells.slots
        self._cells = cells
        self._worker = worker
        self._first = first
        self.in_flight = cells.in_flight[first:last]
        self.held = cells.held[first:last]
        self.bytes = cells.bytes[first:last]
        self.latency = cells.latency[first:last]
        self._keys = cells.keys[first:last]
        self._free = list(range(cells.slots - 1, -1, -1))
        self._peers: dict[int, tuple[int, ...]] = {}
        self._seen: list[int] = []

    def claim(self, service: str, endpoint: str = "") -> int:
        """A slot for an endpoint, or for a service; -1 when all are taken (its numbers are then
        not shared)."""
        if not self._free:
            return -1
        slot = self._free.pop()
        self._zero(slot)
        self._keys[slot] = hash_key(f"{service}\0{endpoint}".encode()) or 1
        self._cells.versions[self._worker] += 1
        self._peers[slot] = ()
        self._seen = []
        return slot

    def release(self, slot: int) -> None:
        """Gives a slot back, when what it was for is gone and nothing of it is under way."""
        if slot < 0:
            return
        self._keys[slot] = 0
        self._zero(slot)
        self._cells.versions[self._worker] += 1
        del self._peers[slot]
        self._free.append(slot)

    def _zero(self, slot: int) -> None:
        self.in_flight[slot] = self.held[slot] = self.bytes[slot] = 0
        self.latency[slot] = 0.0

    def sync(self) -> None:
        """Finds the others' cells again if any worker has claimed or released one since."""
        versions = self._cells.versions.tolist()
        if versions == self._seen:
            return
        cells = self._cells
        at: dict[int, list[int]] = {}
        for worker in range(cells.workers):
            if worker == self._worker or not versions[worker]:
                continue
            first = worker * cells.slots
            for slot, key in enumerate(cells.keys[first : first + cells.slots].tolist(), first):
                if key:
                    at.setdefault(key, []).append(slot)
        for slot in self._peers:
            self._peers[slot] = tuple(at.get(self._keys[slot], ()))
        self._seen = versions

    def in_flight_elsewhere(self, slot: int) -> int:
        """What the other workers have in flight at the endpoint or service of an own slot."""
        return self._sum(self._cells.in_flight, slot)

    def held_elsewhere(self, slot: int) -> int:
        """The connections they have to it, or the requests that wait for it."""
        return self._sum(self._cells.held, slot)

    def bytes_elsewhere(self, slot: int) -> int:
        """What they hold for requests that wait."""
        return self._sum(self._cells.bytes, slot)

    def _sum(self, numbers: memoryview, slot: int) -> int:
        if slot < 0:
            return 0
        key, keys, total = self._keys[slot], self._cells.keys, 0
        for peer in self._peers[slot]:
            count = numbers[peer]
            if keys[peer] == key:
                total += count
        return total

    def oldest_wait_elsewhere(self, slot: int) -> float:
        """Since when the oldest request has waited at another worker for the service of an own
        slot; infinity where none does."""
        oldest = float("inf")
        if slot < 0:
            return oldest
        key, cells = self._keys[slot], self._cells
        for peer in self._peers[slot]:
            since = cells.latency[peer]
            if 0.0 < since < oldest and cells.keys[peer] == key:
                oldest = since
        return oldest

    def mean_latency(self, slot: int) -> float:
        """The mean latency in seconds over the workers that know one; 0.0 if none does."""
        if slot < 0:
            return 0.0
        key, cells = self._keys[slot], self._cells
        known, total = 0, 0.0
        for peer in (self._first + slot, *self._peers[slot]):
            seconds = cells.latency[peer]
            if seconds > 0.0 and cells.keys[peer] == key:
                known += 1
                total += seconds
        return total / known if known else 0.0

    # --- buckets

    def buckets_elsewhere(self, key: int) -> list[float]:
        """When the bucket of `key` will be full again, as each other worker's row has it; 0.0 for
        a row that has none."""
        cells = self._cells
        within = key % (BUCKETS // WAYS) * WAYS
        found = []
        for worker in range(cells.workers):
            if worker == self._worker or not cells.versions[worker]:
                continue
            first = worker * BUCKETS + within
            full_at = 0.0
            for bucket in range(first, first + WAYS):
                if cells.bucket_keys[bucket] == key:
                    full_at = cells.full_at[bucket]
                    if cells.bucket_keys[bucket] != key:
                        full_at = 0.0
                    break
            found.append(full_at)
        return found

    def write_bucket(self, key: int, full_at: float) -> None:
        """Writes when the bucket of `key` will be full again."""
        cells = self._cells
        if not cells.versions[self._worker]:
            cells.versions[self._worker] = 1
        first = self._worker * BUCKETS + key % (BUCKETS // WAYS) * WAYS
        oldest = first
        for bucket in range(first, first + WAYS):
            if cells.bucket_keys[bucket] == key:
                cells.full_at[bucket] = full_at
                return
            if cells.full_at[bucket] < cells.full_at[oldest]:
                oldest = bucket
        cells.bucket_keys[oldest] = 0
        cells.full_at[oldest] = full_at
        cells.bucket_keys[oldest] = key


def size(workers: int, slots: int) -> int:
    """Bytes of the memory for so many workers and slots."""
    return workers * (1 + 5 * slots + 2 * BUCKETS) * _CELL
