"""The work of the control path grows linearly with the mesh: three times the services cost three
times the lines of Python, in every part that runs repeatedly."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

from bench.control import PARTS, Mesh, populate
from proxy.observe.histogram import HistogramRecorder

SMALL, LARGE, REPLICAS = 10, 30, 4


def count_lines(part: Callable[[], object]) -> int:
    """Return how many lines of Python run."""
    count = 0

    def seen(frame: FrameType, event: str, value: object) -> object:
        nonlocal count
        del frame, value
        count += event == "line"
        return seen

    before = sys.gettrace()
    sys.settrace(seen)
    try:
        part()
    finally:
        sys.settrace(before)
    return count


async def costs(directory: Path, services: int) -> dict[str, int]:
    """Return the lines that each part runs in a mesh with this number of services. They are those
    of its second run, when caches are filled."""
    directory.mkdir()
    mesh = Mesh(directory, asyncio.get_running_loop())
    try:
        await populate(mesh, services, REPLICAS)
        found = {}
        for _ in range(2):
            await mesh.one_more(REPLICAS)
            found = {name: count_lines(partial(part, mesh)) for name, part in PARTS.items()}
        return found
    finally:
        await mesh.close()


async def test_three_times_the_services_cost_three_times_as_much(tmp_path: Path) -> None:
    small = await costs(tmp_path / "small", SMALL)
    large = await costs(tmp_path / "large", LARGE)
    growth = {name: large[name] / count for name, count in small.items()}
    print({name: (small[name], large[name]) for name in growth})
    assert {name: ratio for name, ratio in growth.items() if ratio > 3.3} == {}


async def test_messages_are_as_large_as_what_changed(tmp_path: Path) -> None:
    """A delta with one more replica, and the report of a second without requests."""

    async def sizes(services: int) -> tuple[int, int]:
        directory = tmp_path / str(services)
        directory.mkdir()
        mesh = Mesh(directory, asyncio.get_running_loop())
        try:
            await populate(mesh, services, REPLICAS)
            await mesh.one_more(REPLICAS)
            mesh.run_pass()
            mesh.encode()
            mesh.report()
            return len(mesh.frame), len(mesh.report_frame)
        finally:
            await mesh.close()

    small, large = await sizes(SMALL), await sizes(LARGE)
    assert max(large) < 400
    assert abs(large[0] - small[0]) < 10, "names have other lengths"
    assert abs(large[1] - small[1]) < 30


async def test_a_pass_without_changes_runs_few_lines_per_replica(tmp_path: Path) -> None:
    found = await costs(tmp_path / "mesh", LARGE)
    assert found["pass"] / (LARGE * REPLICAS) < 100


def test_an_idle_recorder_costs_nothing() -> None:
    recorder = HistogramRecorder()
    nothing = recorder.drain()
    recorder.record(0.1)
    assert recorder.drain().counts
    assert recorder.drain().counts == {}
    assert recorder.drain() is nothing
    busy, idle = count_lines(_filled().drain), count_lines(recorder.drain)
    assert idle < busy / 50


def _filled() -> HistogramRecorder:
    recorder = HistogramRecorder()
    recorder.record(0.1)
    return recorder
