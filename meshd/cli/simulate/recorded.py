"""Turn the recorded traffic of a service into inputs of the simulator.

Used by `meshd simulate --service`. The daemon records the traffic in `meshd.store.traffic`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshd.api.dto import Recording
from meshd.cli.session import connect, find_service
from meshd.model.scaling import TrafficSpan
from meshd.scaling.settings import settings_of
from meshd.spec.model import Scale

MIN_SECONDS: Final = 180
"""Shortest recording that is accepted: the first two minutes of a simulation are not scored."""
STARTUP_SPREAD: Final = 1.5
"""Ratio of the longest to the shortest simulated start-up time. The learned time, which is a high
quantile, becomes the longest."""


async def fetch(state: Path, service: str, last: float) -> Recording:
    """Return what the daemon recorded of a service in the last `last` seconds.

    Raises the exceptions of `Client`.
    """
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        return await client.traffic(found.project, found.name, max(0.0, time.time() - last))


@dataclass(frozen=True, slots=True)
class RecordedLoad:
    """Recorded load of a service, and measurements of its replicas.

    - `rates`: requests per second, one value per second.
    - `service_time`: mean seconds that a request takes without waiting.
    - `workers`: requests that a replica serves at once.
    - `startup`: seconds that a replica takes to start.
    - `scale`: the spec's settings of the autoscaler.
    """

    rates: tuple[float, ...]
    service_time: float
    workers: int
    startup: float
    scale: Scale


def parse(recording: Recording) -> RecordedLoad:
    """Return the load of a recording. Pure. Raises ValueError if it is too short."""
    known = [span for span in recording.spans if span.service_time > 0.0]
    rates = tuple(_rates(recording.spans))
    if not known or len(rates) < MIN_SECONDS:
        raise ValueError(
            f"only {len(rates)} s of traffic of {recording.service} are recorded in that time; "
            f"expected at least {MIN_SECONDS} s"
        )
    last = known[-1]
    return RecordedLoad(
        rates=rates,
        service_time=_mean_service_time(known),
        workers=max(1, round(last.workers)),
        startup=last.startup,
        scale=Scale.model_validate(recording.scale),
    )


def _rates(spans: Sequence[TrafficSpan]) -> list[float]:
    """Return requests per second: constant within a span, 0 where nothing was recorded."""
    rates: list[float] = []
    for span in spans:
        rates += [0.0] * (span.at - spans[0].at - len(rates))
        rates += [span.arrivals / span.seconds] * span.seconds
    return rates


def _mean_service_time(spans: Sequence[TrafficSpan]) -> float:
    """Return the mean service time per request, in seconds."""
    requests = sum(span.arrivals for span in spans)
    if not requests:
        return spans[-1].service_time
    return sum(span.service_time * span.arrivals for span in spans) / requests


def measured_options(load: RecordedLoad) -> dict[str, Any]:
    """Return the options of `meshd simulate` that describe the service: its replicas as measured,
    its limits and objective from the spec."""
    scale = load.scale
    options: dict[str, Any] = {
        "workers": load.workers,
        "service_mean": load.service_time,
        "startup": (load.startup / STARTUP_SPREAD, load.startup),
        "least": max(1, scale.min),
        "most": scale.max,
        "warm": scale.warm,
    }
    if scale.objective is not None:
        options |= {"objective": scale.objective.latency, "share": scale.objective.share}
    return options


def spec_settings(load: RecordedLoad) -> dict[str, Any]:
    """Return the spec's settings of the autoscaler, by the keys of `--set`."""
    settings = settings_of(load.scale)
    return {
        name: value
        for name in ("latency", "share", "concurrency", "rps", "queue", "down_window", "calm",
                     "step_up", "step_down")
        if (value := getattr(settings, name)) is not None
    }  # fmt: skip
