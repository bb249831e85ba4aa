"""What workers know together without talking: in-flight and latency of every endpoint.

One anonymous shared memory holds a row of cells for each worker. Only the worker itself writes
to its row, so there are no locks; the others add up. A cell is guarded by the key of the endpoint
it was claimed for, written last when claimed and cleared first when released: a reader reads the
value, then the key, and takes the value only when the key is still the one it wants. The
supervisor clears the row of a worker that died.
"""

import mmap
import os
import tempfile
from typing import Final

from proxy.policy.hashing import hash_key

SLOTS: Final = 4096
_CELL: Final = 8


class SharedCells:
    """The whole memory. Made by the supervisor, attached by each worker through the
    inherited file descriptor. `workers` counts the rows, `slots` the endpoints of a row."""

    def __init__(self, fd: int, workers: int, slots: int = SLOTS) -> None:
        self.fd = fd
        self.workers = workers
        self.slots = slots
        cells = workers * slots
        self._memory = mmap.mmap(fd, size(workers, slots))
        view = memoryview(self._memory)
        ends = [0, workers * _CELL]
        ends += [ends[1] + (part + 1) * cells * _CELL for part in range(3)]
        # A row's version changes whenever its keys do.
        self.versions = view[ends[0] : ends[1]].cast("Q")
        self.keys = view[ends[1] : ends[2]].cast("Q")
        self.in_flight = view[ends[2] : ends[3]].cast("q")
        self.latency = view[ends[3] : ends[4]].cast("d")

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
                self.in_flight[slot] = 0
                self.latency[slot] = 0.0
        self.versions[worker] += 1

    def row(self, worker: int) -> "Row":
        """The row of `worker`, to be held by it alone."""
        return Row(self, worker)


class Row:
    """One worker's own cells, and its view of the others'.

    The engine writes `in_flight[slot]` and `latency[slot]` (seconds) of its own; `sync` finds
    the cells of other workers for the same endpoints and is cheap when nothing changed.
    """

    def __init__(self, cells: SharedCells, worker: int) -> None:
        first = worker * cells.slots
        self._cells = cells
        self._worker = worker
        self._first = first
        self.in_flight = cells.in_flight[first : first + cells.slots]
        self.latency = cells.latency[first : first + cells.slots]
        self._keys = cells.keys[first : first + cells.slots]
        self._free = list(range(cells.slots - 1, -1, -1))
        self._peers: dict[int, tuple[int, ...]] = {}
        self._seen: list[int] = []

    def claim(self, service: str, endpoint: str) -> int:
        """A slot for an endpoint; -1 when all are taken (its numbers are then not shared)."""
        if not self._free:
            return -1
        slot = self._free.pop()
        self.in_flight[slot] = 0
        self.latency[slot] = 0.0
        self._keys[slot] = hash_key(f"{service}\0{endpoint}".encode()) or 1
        self._cells.versions[self._worker] += 1
        self._peers[slot] = ()
        self._seen = []
        return slot

    def release(self, slot: int) -> None:
        """Gives a slot back, when the endpoint is gone and nothing is in flight to it."""
        if slot < 0:
            return
        self._keys[slot] = 0
        self.in_flight[slot] = 0
        self.latency[slot] = 0.0
        self._cells.versions[self._worker] += 1
        del self._peers[slot]
        self._free.append(slot)

    def sync(self) -> None:
        """Finds the others' cells again if any worker has claimed or released one since."""
        versions = self._cells.versions.tolist()
        if versions == self._seen:
            return
        cells = self._cells
        at: dict[int, list[int]] = {}
        for worker in range(cells.workers):
            if worker == self._worker:
                continue
            first = worker * cells.slots
            for slot, key in enumerate(cells.keys[first : first + cells.slots].tolist(), first):
                if key:
                    at.setdefault(key, []).append(slot)
        for slot in self._peers:
            self._peers[slot] = tuple(at.get(self._keys[slot], ()))
        self._seen = versions

    def others(self, slot: int) -> int:
        """What the other workers have in flight to the endpoint of an own slot."""
        if slot < 0:
            return 0
        key, cells, total = self._keys[slot], self._cells, 0
        for peer in self._peers[slot]:
            count = cells.in_flight[peer]
            if cells.keys[peer] == key:
                total += count
        return total

    def latency_of_all(self, slot: int) -> float:
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


def size(workers: int, slots: int) -> int:
    """Bytes of the memory for so many workers and slots."""
    return workers * _CELL + 3 * workers * slots * _CELL
