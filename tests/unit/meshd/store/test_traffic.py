"""Recorded traffic: bounded in the store, and fed to the simulator."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshd.api.dto import Recording
from meshd.api.server import serve
from meshd.cli.main import main
from meshd.cli.simulate.recorded import parse
from meshd.model.scaling import TrafficSpan
from meshd.store.traffic import COARSE, COARSE_LIFE, FINE, FINE_LIFE
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas

SCALE = {"min": 1, "max": 12, "objective": {"latency": 0.3, "share": 99.0}}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def span(at: int, arrivals: int, seconds: int = FINE, took: float = 0.1) -> TrafficSpan:
    return TrafficSpan(at, seconds, arrivals, took, 4.2, 9.0)


def test_seconds_are_added_up_and_survive_a_restart(scene: Scene) -> None:
    service = desired(2, scale={"min": 1})
    for second in range(95):
        scene.second(service, replicas(2), arrivals=second % 7, took=0.05)
    scene.restart()
    spans = scene.traffic.of(KEY, NOW)
    assert {each.seconds for each in spans} == {FINE}
    whole = [each for each in spans if each.at >= NOW and each.at + FINE <= NOW + 90]
    expected = [second % 7 for second in range(95)]
    for each in whole:
        since = each.at - int(NOW)
        assert each.arrivals == sum(expected[since : since + FINE])
    assert whole[-1].service_time == pytest.approx(0.05, rel=0.1)
    coarse = scene.store.database.execute(
        "SELECT count(*) FROM traffic WHERE seconds = ?", (COARSE,)
    ).fetchone()[0]
    assert coarse >= 1


def test_a_week_is_kept_in_minutes_and_a_day_in_tens_of_seconds(scene: Scene) -> None:
    start = int(NOW) // COARSE * COARSE
    for at in range(start, start + COARSE_LIFE + 86400, 3600):
        scene.traffic.add(KEY, span(at, 1, 1))
        scene.traffic.flush(at)
    newest = start + COARSE_LIFE + 86400
    scene.traffic.flush(newest)
    fine = scene.traffic.of(KEY, newest - 3600 * 12)
    assert {each.seconds for each in fine} == {FINE}
    coarse = scene.traffic.of(KEY, 0)
    assert {each.seconds for each in coarse} == {COARSE}
    assert coarse[0].at >= newest - COARSE_LIFE - 3600
    rows = scene.store.database.execute("SELECT count(*) FROM traffic").fetchone()[0]
    assert rows <= COARSE_LIFE // 3600 + FINE_LIFE // 3600 + 4


def test_rates_gaps_and_measured_times() -> None:
    spans = [span(0, 20), span(10, 40, took=0.2), *(span(at, 10) for at in range(200, 230, 10))]
    found = parse(Recording("shop/orders", SCALE, tuple(spans)))
    assert len(found.rates) == 230
    assert (found.rates[5], found.rates[15], found.rates[100], found.rates[205]) == (2, 4, 0, 1)
    assert found.service_time == pytest.approx((0.1 * 50 + 0.2 * 40) / 90)
    assert (found.workers, found.startup) == (4, 9.0)
    with pytest.raises(ValueError, match="only 20 s of traffic of shop/orders are recorded"):
        parse(Recording("shop/orders", SCALE, tuple(spans[:2])))


async def simulate(control: FakeControl, folder: Path, *arguments: str) -> dict[str, object]:
    whole = ["simulate", *arguments, "-o", "json", "--state", str(folder)]
    async with serve(control, folder / "admin.sock", "127.0.0.1:0"):
        done = await asyncio.to_thread(CliRunner().invoke, main, whole)
    assert done.exit_code == 0, done.output
    result = json.loads(done.output)
    assert isinstance(result, dict)
    return result


async def test_simulate_a_recorded_service(tmp_path: Path) -> None:
    control = FakeControl()
    control.services = traffic.status().services
    steps = [span(at, 200 if at < 600 else 1200) for at in range(0, 1200, FINE)]
    control.recording = Recording("shop/orders", SCALE, tuple(steps))
    asked = ("--service", "orders", "--last", "2h", "--balancer", "p2c", "--jobs", "1")
    plain = await simulate(control, tmp_path, *asked)
    assert control.calls[-1][:3] == ("traffic", "shop", "orders")
    assert plain["trace"] == "orders"
    settings = plain["settings"]
    assert isinstance(settings, dict)
    assert (settings["workers"], settings["service_mean"], settings["max"]) == (4, 0.1, 12)
    assert (settings["objective"], settings["share"]) == (0.3, 99.0)
    tight = await simulate(control, tmp_path, *asked, "--set", "p99.9=150ms", "--workers", "2")
    assert tight["settings"]["workers"] == 2  # type: ignore[index]

    def hours(result: dict[str, object]) -> float:
        return float(result["policies"][0]["replica_hours"])  # type: ignore[index]

    assert hours(tight) > hours(plain) > 0.0


def test_simulate_takes_a_trace_or_a_service(tmp_path: Path) -> None:
    for arguments in ([], ["--service", "a", "--trace", __file__]):
        done = CliRunner().invoke(main, ["simulate", *arguments])
        assert done.exit_code == 2
        assert "use either --trace FILE or --service SERVICE" in done.output
