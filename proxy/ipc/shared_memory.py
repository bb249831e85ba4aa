"""The memory that workers share: counters of endpoints and services, without locks.

The supervisor creates it; each worker owns one row, which only that worker writes. The others read
all rows and combine them. `proxy.state` and the rate limiter (`proxy.policy.ratelimit`) use it. A
cell is guarded by a key, the hash of what it was claimed for: the key is written last on a claim
and cleared first on a release. A reader reads the value, then the key, and uses the value only if
the key is still the expected one. The supervisor clears the row of a worker that died, so what it
held is released.

| cell | of an endpoint | of a service |
| --- | --- | --- |
| `in_flight` | requests in flight | requests in flight |
| `held` | connections | requests that wait |
| `bytes` | | bytes of requests that wait |
| `latency` | seconds | since when the oldest waits (monotonic seconds; 0.0: none waits) |

A row also has buckets for the keys of rate limits: a set-associative hash table that replaces the
oldest entry of a set. The value of a bucket is the time when it is full again. The latest value of
all rows applies, because a worker reads the others' before it writes its own.
"""

import mmap
import os
import tempfile
from typing import Final

from proxy.policy.hashing import hash_key

SLOTS: Final = 4096
"""Endpoints and services per row. More are counted per worker only."""
BUCKETS: Final = 16384
"""Rate-limit buckets per row: more than `ratelimit.MAX_KEYS`, so that hash sets rarely fill up."""
WAYS: Final = 4
"""Buckets per set of the hash table."""
_CELL: Final = 8
"""Bytes of a cell: a 64-bit integer or float."""
_CELLS_PER_SLOT: Final = 5
"""Key and the four values of a slot."""
_CELLS_PER_BUCKET: Final = 2
"""Key and time."""


class SharedCells:
    """The shared memory of all workers. The supervisor creates it; workers attach it by the
    inherited descriptor.

    - `fd`: its descriptor
    - `workers`: number of rows
    - `slots`: endpoints and services per row
    - `versions`: one number per row that changes whenever the row's keys change
    """

    def __init__(self, fd: int, workers: int, slots: int = SLOTS) -> None:
        self.fd = fd
        self.workers = workers
        self.slots = slots
        self._memory = mmap.mmap(fd, size(workers, slots))
        self._end = 0
        cells = workers * slots
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
        """Create zeroed memory, whose descriptor child processes may inherit (`pass_fds`)."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("meshd-cells")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size(workers, slots))
        return cls(fd, workers, slots)

    def clear(self, worker: int) -> None:
        """Clear the row of a dead worker. Only its owner may write the row of a live one."""
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
        """Return the row of `worker`; only that worker may hold it."""
        return WorkerRow(self, worker)


class WorkerRow:
    """One worker's own cells, and its view of the other workers' cells.

    The owner writes the cells of a slot that it claimed. `sync` finds the cells that other workers
    have for the same key; it is cheap if nothing has changed.
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
        """Claim a slot for an endpoint, or for a service; -1 if all are taken.

        Without a slot, its numbers are not shared.
        """
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
        """Release a slot whose endpoint or service is removed and has nothing in flight."""
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
        """Update the view of the others' cells if any worker has claimed or released one."""
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
        """Return the requests that other workers have in flight at an own slot's target."""
        return self._sum(self._cells.in_flight, slot)

    def held_elsewhere(self, slot: int) -> int:
        """Return their connections to it, or the requests that wait for it there."""
        return self._sum(self._cells.held, slot)

    def bytes_elsewhere(self, slot: int) -> int:
        """Return the bytes of requests that wait for it there."""
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
        """Return since when the oldest request waits at another worker; infinity if none waits."""
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
        """Return the mean latency in seconds over the workers that know one; 0.0 if none does."""
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

    # --- Rate-limit buckets

    def buckets_elsewhere(self, key: int) -> list[float]:
        """Return when the bucket of `key` is full again, for each other row; 0.0 if it has none."""
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
        """Write when the bucket of `key` is full again."""
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
    """Return the size of the memory in bytes."""
    return workers * (1 + _CELLS_PER_SLOT * slots + _CELLS_PER_BUCKET * BUCKETS) * _CELL
