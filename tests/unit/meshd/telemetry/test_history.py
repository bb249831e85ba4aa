"""The past of services: exact at each resolution, bounded in memory, kept over a restart."""

from pathlib import Path

import pytest

from meshd.model.history import HistoryPoint
from meshd.store.history import HistoryLog
from meshd.telemetry.history import REMOVED_KEPT, TIERS, History, ServiceSize
from meshd.telemetry.latency_rings import LatencyRing
from meshd.telemetry.merge import MergedService
from tests.support.stores import open_store

START = 1_200_000
"""A Unix time at which a minute begins."""
KEY = "shop/web"


def second(requests: int, latency: float = 0.01, errors: int = 0) -> MergedService:
    """A second with this number of requests, each of which takes `latency` seconds."""
    merged = MergedService(interval=1.0, codes={"GET 2xx": requests - errors, "GET 5xx": errors})
    merged.queue_seconds = requests * latency
    for _ in range(requests):
        merged.total.observe(latency)
    return merged


def test_each_resolution_is_kept_for_its_time() -> None:
    history = History()
    length = 2 * 86400
    empty, size = second(0), ServiceSize(2, 3, 0.5)
    for offset in range(length):
        history.add(KEY, START + offset, empty, size)
    last = START + length - 1
    steps = {
        ago: point.step if (point := history.at(KEY, last - ago)) else None
        for ago in (0, 599, 700, 7100, 7300, 86000, 87000)
    }
    assert steps == {0: 1, 599: 1, 700: 10, 7100: 10, 7300: 60, 86000: 60, 87000: None}
    assert [len(history.series(KEY, last - ago, last)) for ago in (60, 3600, 80000)] == [
        61,
        360,
        1333,
    ]
    assert history.memory == sum(steps for _, steps in TIERS) * 40 + LatencyRing().memory
    point = history.at(KEY, last)
    assert point is not None
    assert (point.ready, point.desired, point.cores, point.p95) == (2, 3, 0.5, None)


def test_a_longer_step_has_the_rates_and_quantiles_of_all_its_requests() -> None:
    history = History()
    minutes = []
    for offset in range(121):
        slow = offset % 60 == 59
        merged = second(90 if slow else 10, 1.0 if slow else 0.01, errors=6 if slow else 0)
        minutes.append(history.add(KEY, START + offset, merged, ServiceSize(1, 1)))
    ended = [point for point in minutes if point is not None]
    assert [point.at for point in ended] == [START, START + 60]
    point = history.series(KEY, START, START + 59)[0]
    minute = ended[0]
    assert point.step == 1
    assert minute.rps == pytest.approx((59 * 10 + 90) / 60)
    assert minute.errors == pytest.approx(0.1)
    assert minute.in_flight == pytest.approx((59 * 10 * 0.01 + 90) / 60)
    assert minute.p50 is not None
    assert minute.p95 is not None
    assert minute.p50 < 0.02
    assert minute.p95 > 0.9


def test_a_second_is_counted_once_and_gaps_are_gaps() -> None:
    history = History()
    for offset in (0, 0, 1, 0, 30, 60):
        history.add(KEY, START + offset, second(10), ServiceSize())
    minute = history.at(KEY, START + 45)
    assert minute is not None
    assert (minute.step, minute.rps) == (60, pytest.approx(10.0))
    seconds = [point.at - START for point in history.series(KEY, START + 0, START + 60)]
    assert seconds == [0, 1, 30, 60]
    assert history.at("shop/other", START) is None
    assert history.series("shop/other", 0, START) == []


def test_memory_is_bounded_by_the_known_services() -> None:
    history = History()
    for number in range(REMOVED_KEPT + 100):
        history.add(f"shop/s{number}", START + number, second(0), ServiceSize())
    known = [f"shop/s{number}" for number in range(3)]
    history.forget_removed(known)
    left = [name for name, _ in history.all_at(START + 149, lambda _: True)]
    assert left == ["shop/s149"]
    one = sum(steps for _, steps in TIERS) * 40 + LatencyRing().memory
    assert history.memory == (REMOVED_KEPT + 3) * one
    assert 200 * one < 28e6


def test_minutes_survive_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = HistoryLog(store)
    point = HistoryPoint(START, 60, 1.5, 0.5, 0.01, None, 0.25, 2.0, 3, 4, 0.75)
    for minute in range(3):
        at = START + 60 * minute
        log.keep(at, {KEY: point}, START + 60)
    store.close()
    store = open_store(tmp_path)
    history = History()
    for _, points in HistoryLog(store).read(START + 200):
        for name, each in points.items():
            history.restore(name, (each,))
    assert history.at(KEY, START + 30) is None
    found = history.at(KEY, START + 119)
    assert found is not None
    assert (found.at, found.rps, found.p95, found.ready) == (START + 60, 1.5, None, 3)
    assert found.p50 == pytest.approx(0.01)
    assert list(HistoryLog(store).read(START + 3 * 86400)) == []
    store.close()


def test_sparklines_have_a_place_for_each_step() -> None:
    history = History()
    for offset in range(35):
        if not 10 <= offset < 20:
            history.add(KEY, START + offset, second(20, errors=2), ServiceSize(2, 3))
    history.add("bank/vault", START, second(1), ServiceSize())
    (line,) = history.sparklines(START, START + 40, lambda name: name == KEY)
    assert (line.service, line.step, line.first) == (KEY, 10, START)
    assert line.rps == (20.0, None, 20.0, None)
    assert line.errors == (2.0, None, 2.0, None)
    assert line.ready == (2, None, 2, None)
    assert line.p95[0] == pytest.approx(0.01, rel=0.04)
    assert line.p95[1] is None


def test_latencies_are_kept_for_the_last_hour() -> None:
    history = History()
    assert not any(history.latencies(KEY, START, START + 30).counts)
    for offset in range(25):
        history.add(KEY, START + offset, second(3, 0.2 if offset < 10 else 60.0), ServiceSize())
    found = history.latencies(KEY, START, START + 30)
    assert (found.step, found.first, len(found.counts)) == (10, START, 4)
    first, middle, last, none = found.counts
    assert (sum(first), sum(middle), sum(last), none) == (30, 30, 15, ())
    row = first.index(30)
    assert found.bounds[row - 1] < 0.2 <= found.bounds[row]
    assert middle[-1] == 30, "longer than the last bound"
    later = START + 3600
    history.add(KEY, later, second(1), ServiceSize())
    kept = history.latencies(KEY, START, later)
    assert (kept.first, len(kept.counts)) == (START + 10, 360)
    assert (sum(kept.counts[0]), sum(kept.counts[-1])) == (30, 1)
