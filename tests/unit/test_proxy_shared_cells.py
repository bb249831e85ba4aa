"""Cells that workers share: sums, reuse of slots, the death of a worker, another process."""

import os
import subprocess
import sys

import pytest

from proxy.shared_cells import SharedCells


def test_others_are_added_up() -> None:
    cells = SharedCells.create(3, slots=8)
    rows = [cells.row(worker) for worker in range(3)]
    rows[0].claim("s", "first")  # slots differ between workers
    slots = [row.claim("s", "a") for row in rows]
    for number, (row, slot) in enumerate(zip(rows, slots, strict=True), 1):
        row.in_flight[slot] = number
        row.latency[slot] = number / 10
    for row in rows:
        row.sync()
    assert [row.others(slot) for row, slot in zip(rows, slots, strict=True)] == [5, 4, 3]
    assert rows[0].latency_of_all(slots[0]) == pytest.approx(0.2)
    rows[1].in_flight[slots[1]] = 0
    assert rows[0].others(slots[0]) == 3


def test_same_endpoint_of_another_service_is_another() -> None:
    cells = SharedCells.create(2, slots=4)
    one, two = cells.row(0), cells.row(1)
    mine, theirs = one.claim("s", "a"), two.claim("t", "a")
    two.in_flight[theirs] = 9
    one.sync()
    assert one.others(mine) == 0


def test_a_reused_slot_is_never_counted_for_the_old_endpoint() -> None:
    cells = SharedCells.create(2, slots=4)
    one, two = cells.row(0), cells.row(1)
    mine, theirs = one.claim("s", "a"), two.claim("s", "a")
    two.in_flight[theirs] = 3
    one.sync()
    assert one.others(mine) == 3
    two.release(theirs)
    reused = two.claim("s", "b")
    two.in_flight[reused] = 7
    assert reused == theirs
    assert one.others(mine) == 0, "before the next sync already"
    one.sync()
    assert one.others(mine) == 0


def test_a_dead_workers_row_is_cleared_and_used_again() -> None:
    cells = SharedCells.create(2, slots=4)
    one, dead = cells.row(0), cells.row(1)
    mine = one.claim("s", "a")
    dead.in_flight[dead.claim("s", "a")] = 5
    one.sync()
    assert one.others(mine) == 5
    cells.clear(1)
    assert one.others(mine) == 0
    successor = cells.row(1)
    successor.in_flight[successor.claim("s", "a")] = 2
    one.sync()
    assert one.others(mine) == 2


def test_without_a_slot_nothing_is_shared() -> None:
    cells = SharedCells.create(1, slots=1)
    row = cells.row(0)
    assert row.claim("s", "a") == 0
    assert row.claim("s", "b") == -1
    assert row.others(-1) == 0
    assert row.latency_of_all(-1) == 0.0
    row.release(-1)


def test_another_process_sees_the_same() -> None:
    cells = SharedCells.create(2, slots=4)
    row = cells.row(0)
    slot = row.claim("s", "a")
    code = (
        "import sys; from proxy.shared_cells import SharedCells\n"
        "row = SharedCells(int(sys.argv[1]), 2, slots=4).row(1)\n"
        "row.in_flight[row.claim('s', 'a')] = 42\n"
    )
    subprocess.run([sys.executable, "-c", code, str(cells.fd)], pass_fds=[cells.fd], check=True)
    row.sync()
    assert row.others(slot) == 42
    os.close(cells.fd)
