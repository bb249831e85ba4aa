"""Recorded traffic of a service as what the simulator takes."""

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

LEAST: Final = 180
"""Seconds; the first two minutes of a simulation are not scored."""
SPREAD: Final = 1.5
"""Start-up times lie between the learned one and this part of it less: it is a late one."""


async def fetch(state: Path, service: str, last: float) -> Recording:
    """What the daemon recorded of a service over the last seconds. Raises what `Client` does."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        return await client.traffic(found.project, found.name, max(0.0, time.time() - last))


@dataclass(frozen=True, slots=True)
class Recorded:
    """Requests a second, and what was measured of the replicas that served them. `scale` is what
    the spec asks of the autoscaler."""

    rates: tuple[float, ...]
    service_time: float
    workers: int
    startup: float
    scale: Scale


def read(recording: Recording) -> Recorded:
    """Pure. Raises ValueError where there is too little to go by."""
    known = [span for span in recording.spans if span.service_time > 0.0]
    rates = tuple(_rates(recording.spans))
    if not known or len(rates) < LEAST:
        raise ValueError(
            f"of {recording.service} {len(rates)} s of traffic are recorded in that time; "
            f"expected {LEAST} s at least"
        )
    last = known[-1]
    return Recorded(
        rates=rates,
        service_time=_weighted(known),
        workers=max(1, round(last.workers)),
        startup=last.startup,
        scale=Scale.model_validate(recording.scale),
    )


def _rates(spans: Sequence[TrafficSpan]) -> list[float]:
    """Each step spread over its seconds; where nothing was recorded nothing came."""
    rates: list[float] = []
    for span in spans:
        rates += [0.0] * (span.at - spans[0].at - len(rates))
        rates += [span.arrivals / span.seconds] * span.seconds
    return rates


def _weighted(spans: Sequence[TrafficSpan]) -> float:
    """The mean service time of a request."""
    requests = sum(span.arrivals for span in spans)
    if not requests:
        return spans[-1].service_time
    return sum(span.service_time * span.arrivals for span in spans) / requests


def options(recorded: Recorded) -> dict[str, Any]:
    """The simulator's options as the service has them: its model as measured, its bounds and
    objective as the spec says."""
    scale = recorded.scale
    found: dict[str, Any] = {
        "workers": recorded.workers,
        "service_mean": recorded.service_time,
        "startup": (recorded.startup / SPREAD, recorded.startup),
        "least": max(1, scale.min),
        "most": scale.max,
        "warm": scale.warm,
    }
    if scale.objective is not None:
        found |= {"objective": scale.objective.latency, "share": scale.objective.share}
    return found


def settings(recorded: Recorded) -> dict[str, Any]:
    """What the spec asks of the autoscaler, as `--set` would say it."""
    asked = settings_of(recorded.scale)
    return {
        name: value
        for name in ("latency", "share", "concurrency", "rps", "queue", "down_window", "calm",
                     "step_up", "step_down")
        if (value := getattr(asked, name)) is not None
    }  # fmt: skip
