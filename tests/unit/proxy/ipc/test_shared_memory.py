"""Cells that workers share: sums, reuse of slots, the death of a worker, another process; and
the limits that are kept by them."""

import os
import subprocess
import sys
from random import Random

import pytest

from proxy.ipc.shared_memory import SharedCells, WorkerRow
from proxy.policy.ratelimit import RateLimiter
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import Endpoint, Limits, RateLimit, Service


def test_counts_of_other_workers_are_added() -> None:
    cells = SharedCells.create(3, slots=8)
    rows = [cells.row(worker) for worker in range(3)]
    rows[0].claim("s", "first")  # slots differ between workers
    slots = [row.claim("s", "a") for row in rows]
    for number, (row, slot) in enumerate(zip(rows, slots, strict=True), 1):
        row.in_flight[slot] = number
        row.latency[slot] = number / 10
    for row in rows:
        row.sync()
    assert [row.in_flight_elsewhere(slot) for row, slot in zip(rows, slots, strict=True)] == [
        5,
        4,
        3,
    ]
    assert rows[0].mean_latency(slots[0]) == pytest.approx(0.2)
    rows[1].in_flight[slots[1]] = 0
    assert rows[0].in_flight_elsewhere(slots[0]) == 3


def test_same_endpoint_of_another_service_is_another() -> None:
    cells = SharedCells.create(2, slots=4)
    one, two = cells.row(0), cells.row(1)
    mine, theirs = one.claim("s", "a"), two.claim("t", "a")
    two.in_flight[theirs] = 9
    one.sync()
    assert one.in_flight_elsewhere(mine) == 0


def test_a_reused_slot_is_never_counted_for_the_old_endpoint() -> None:
    cells = SharedCells.create(2, slots=4)
    one, two = cells.row(0), cells.row(1)
    mine, theirs = one.claim("s", "a"), two.claim("s", "a")
    two.in_flight[theirs] = 3
    one.sync()
    assert one.in_flight_elsewhere(mine) == 3
    two.release(theirs)
    reused = two.claim("s", "b")
    two.in_flight[reused] = 7
    assert reused == theirs
    assert one.in_flight_elsewhere(mine) == 0, "before the next sync already"
    one.sync()
    assert one.in_flight_elsewhere(mine) == 0


def test_a_dead_workers_row_is_cleared_and_used_again() -> None:
    cells = SharedCells.create(2, slots=4)
    one, dead = cells.row(0), cells.row(1)
    mine = one.claim("s", "a")
    dead.in_flight[dead.claim("s", "a")] = 5
    one.sync()
    assert one.in_flight_elsewhere(mine) == 5
    cells.clear(1)
    assert one.in_flight_elsewhere(mine) == 0
    successor = cells.row(1)
    successor.in_flight[successor.claim("s", "a")] = 2
    one.sync()
    assert one.in_flight_elsewhere(mine) == 2


def test_without_a_slot_nothing_is_shared() -> None:
    cells = SharedCells.create(1, slots=1)
    row = cells.row(0)
    assert row.claim("s", "a") == 0
    assert row.claim("s", "b") == -1
    assert row.in_flight_elsewhere(-1) == 0
    assert row.mean_latency(-1) == 0.0
    row.release(-1)


def test_another_process_sees_the_same() -> None:
    cells = SharedCells.create(2, slots=4)
    row = cells.row(0)
    slot = row.claim("s", "a")
    code = (
        "import sys; from proxy.ipc.shared_memory import SharedCells\n"
        "row = SharedCells(int(sys.argv[1]), 2, slots=4).row(1)\n"
        "row.in_flight[row.claim('s', 'a')] = 42\n"
    )
    subprocess.run([sys.executable, "-c", code, str(cells.fd)], pass_fds=[cells.fd], check=True)
    row.sync()
    assert row.in_flight_elsewhere(slot) == 42
    os.close(cells.fd)


# --- rate limits: every worker's bucket is the same one


def limiters(count: int, limit: RateLimit) -> tuple[list[WorkerRow], list[RateLimiter]]:
    cells = SharedCells.create(count, slots=4)
    rows = [cells.row(number) for number in range(count)]
    return rows, [RateLimiter(limit, "route", row) for row in rows]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_a_rate_limit(workers: int) -> None:
    _, all_of_them = limiters(workers, RateLimit(rate=50.0, burst=10.0))
    choose = Random(7).choice
    passed = sum(choose(all_of_them).acquire(b"k", tick / 1000) == 0.0 for tick in range(1, 10_000))
    assert passed == pytest.approx(510, abs=2)


def test_keys_and_limits_are_separate() -> None:
    (row, _), (one, two) = limiters(2, RateLimit(rate=1.0, burst=1.0))
    assert one.acquire(b"a", 5.0) == 0.0
    assert two.acquire(b"a", 5.0) == pytest.approx(1.0)
    assert two.acquire(b"b", 5.0) == 0.0
    assert two.acquire(None, 5.0) == 0.0
    other_route = RateLimiter(RateLimit(rate=1.0, burst=1.0), "another route", row)
    assert other_route.acquire(b"a", 5.0) == 0.0


class AtOnce:
    """A row through which another worker decides between this one's look and its word."""

    def __init__(self, row: WorkerRow, other: RateLimiter) -> None:
        self.row = row
        self.other = other
        self.once = True
        self.buckets_elsewhere = row.buckets_elsewhere

    def write_bucket(self, key: int, full_at: float) -> None:
        if self.once:
            self.once = False
            self.other.acquire(b"k", 5.0)
        self.row.write_bucket(key, full_at)


def test_concurrent_decisions_never_exceed_the_limit() -> None:
    (row, _), (_, other) = limiters(2, RateLimit(rate=1.0, burst=1.0))
    racing = RateLimiter(RateLimit(rate=1.0, burst=1.0), "route", AtOnce(row, other))
    assert racing.acquire(b"k", 5.0) > 0.0, "the other had the only one"
    (row, _), (_, other) = limiters(2, RateLimit(rate=1.0, burst=5.0))
    racing = RateLimiter(RateLimit(rate=1.0, burst=5.0), "route", AtOnce(row, other))
    assert racing.acquire(b"k", 5.0) == 0.0
    assert [other.acquire(b"k", 5.0) == 0.0 for _ in range(4)] == [True] * 3 + [False]


def test_too_many_keys_only_loosen_the_rarest() -> None:
    _, (one, two) = limiters(2, RateLimit(rate=0.001, burst=1.0))
    keys = [b"%d" % number for number in range(3000)]
    assert all(one.acquire(key, 5.0) == 0.0 for key in keys)
    assert sum(two.acquire(key, 5.0) == 0.0 for key in keys) < 30


def test_buckets_of_a_dead_worker_are_cleared() -> None:
    cells = SharedCells.create(2, slots=4)
    row = cells.row(0)
    cells.row(1).write_bucket(77, 9.0)
    assert row.buckets_elsewhere(77) == [9.0]
    cells.clear(1)
    assert row.buckets_elsewhere(77) == [0.0]


# --- bounds: everybody's requests count


def bounded(limits: Limits, rows: list[WorkerRow]) -> list[ServiceState]:
    endpoint = Endpoint("e", "127.0.0.1", 1)
    service = Service("s", "1", (endpoint,), limits=limits)
    made = [ServiceState(service, row, len(rows)) for row in rows]
    for state, row in zip(made, rows, strict=True):
        state.update(service, 0.0, 0.0)
        state.endpoints["e"].share(row)
    return made


def test_the_last_slot_is_left_to_the_longest_waiting_worker_for_a_while() -> None:
    cells = SharedCells.create(2, slots=4)
    one, two = bounded(Limits(endpoint_in_flight=2), [cells.row(0), cells.row(1)])
    mine, theirs = one.endpoints["e"], two.endpoints["e"]
    assert one.limits.reserve(mine, 10.0, 10.0)
    mine.start(10.0)
    assert one.limits.reserve(mine, 10.0, 10.0)
    mine.start(10.0)
    assert not two.limits.reserve(theirs, 10.0, 10.0)
    theirs.publish()
    two.waiting.append(Waits(10.0))  # type: ignore[arg-type]
    two.limits.publish()
    mine.finish(10.5)
    assert not one.limits.reserve(mine, 10.5, 10.5), "the other has waited for half a second"
    mine.publish()
    assert two.limits.reserve(theirs, 10.51, 10.0)
    theirs.publish()
    assert one.limits.reserve(mine, 10.53, 10.53), "it had its chance"


class Waits:
    """The part of a queue entry that limits read."""

    def __init__(self, since: float) -> None:
        self.since = since


def test_without_shared_memory_a_worker_keeps_to_its_share() -> None:
    service = Service("s", "1", (Endpoint("e", "h", 1),), limits=Limits(endpoint_in_flight=8))
    state = ServiceState(service, None, 4)
    state.update(service, 0.0, 0.0)
    endpoint = state.endpoints["e"]
    taken = 0
    while state.limits.reserve(endpoint, 0.0, 0.0):
        endpoint.start(0.0)
        taken += 1
    assert taken == 2
