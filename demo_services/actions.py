"""What the scenario does to the application during the lunch rush, and what it observes.

`scenario` runs `watch` and `run_actions` while locust sends requests, and reports the result.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo_services.mesh import Mesh, MeshError

RUSH_ENDS = 0.6
"""When the rush ends, as a fraction of the scenario; see `locustfile.LunchRush`."""
SCALED = ("orders", "payments")
"""Services that the rush makes larger and its end smaller."""
KILL, SLOW_DOWN, ROLLOUT, SPEED_UP = 0.36, 0.48, 0.56, 0.75
"""When each action begins, as a fraction of the scenario; see `locustfile.LunchRush`."""
HEAL_TIMEOUT = 60.0
"""Seconds after which a killed replica counts as not replaced."""
POLL_SECONDS = 0.25
"""Seconds between two readings of status and events."""
SLOWDOWN = 6
"""Factor by which the slow replica's service time grows."""
REQUEST_ERRORS = (aiohttp.ClientError, TimeoutError)


@dataclass
class Observations:
    """What was observed so far. `started` is on the monotonic clock.

    - `lines`: what happened, for the display.
    - `replicas_ready`: (seconds, ready replicas) by service.
    - `services`: latest status by service; `clients`: latest totals of locust.
    - `heal_seconds`: from the kill until the service was complete again; None: not observed.
    - `last_event`: id of the last event that was read.
    """

    started: float
    lines: list[str] = field(default_factory=list)
    replicas_ready: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)
    heal_seconds: float | None = None
    rollout: str = "not reached"
    rolled_out: bool = False
    last_event: int = 0

    def note(self, text: str) -> None:
        """Add a line with the time since the start."""
        self.lines.append(f"{time.monotonic() - self.started:5.1f} s  {text}")


def read_totals(report: Path) -> dict[str, Any]:
    """Return locust's totals so far; empty until its first second is over."""
    try:
        totals: dict[str, Any] = json.loads(report.read_text())
    except FileNotFoundError:
        return {}
    return totals


async def watch(mesh: Mesh, observations: Observations, report: Path) -> None:
    """Observe the mesh and the clients until cancelled. Earlier events are skipped."""
    while earlier := await mesh.events(observations.last_event):
        observations.last_event = earlier[-1]["id"]
    while True:
        with contextlib.suppress(*REQUEST_ERRORS):
            observations.services = await mesh.services()
            at = round(time.monotonic() - observations.started, 1)
            for name, service in observations.services.items():
                observations.replicas_ready.setdefault(name, []).append((at, service["ready"]))
            events = await mesh.events(observations.last_event)
            observations.last_event = max(
                (e["id"] for e in events), default=observations.last_event
            )
            for line in describe_events(events):
                observations.note(line)
        observations.clients = read_totals(report) or observations.clients
        await asyncio.sleep(POLL_SECONDS)


def describe_events(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each event; those that differ only in their replica share one."""
    same = Counter((e["service"] or "mesh", e["kind"], e["text"]) for e in events)
    return [
        f"{service}: {text}{f' (x{count})' if count > 1 else ''}"
        for (service, _, text), count in same.items()
    ]


def describe_scaling(observations: Observations, seconds: float) -> dict[str, str]:
    """Return what became of each service of `SCALED`, e.g. `1 → 3 → 1`, with what did not happen
    as it should. `seconds` is the length of the scenario."""
    found = {}
    for name in SCALED:
        samples = observations.replicas_ready.get(name, [])
        if not samples:
            found[name] = "not observed"
            continue
        first, most, last = samples[0][1], max(n for _, n in samples), samples[-1][1]
        text = f"{first} → {most} → {last}"
        after = [count for at, count in samples if at > RUSH_ENDS * seconds]
        if most <= first:
            text = f"{first} throughout: NOT scaled up in the rush"
        elif not after or min(after) >= most:
            text += ": NOT scaled down after the rush"
        found[name] = text
    return found


def ready_replicas(observations: Observations, service: str) -> list[dict[str, Any]]:
    """Return the replicas of a service that get requests."""
    replicas = observations.services.get(service, {}).get("replicas", ())
    return [replica for replica in replicas if replica["phase"] == "ready"]


async def kill(mesh: Mesh, observations: Observations) -> None:
    """Kill a replica of `restaurants`, and measure how long the service is incomplete."""
    victim = ready_replicas(observations, "restaurants")[0]
    observations.note(f"demo: kill -9 {victim['name']}")
    killed = time.monotonic()
    with contextlib.suppress(TimeoutError):  # it may crash a moment later
        await mesh.set_fault(victim["address"], "crashing")
    while time.monotonic() - killed < HEAL_TIMEOUT:
        await asyncio.sleep(0.1)
        alive = {
            (r["name"], r["address"], r["since"])
            for r in ready_replicas(observations, "restaurants")
        }
        gone = (victim["name"], victim["address"], victim["since"]) not in alive
        if gone and len(alive) >= observations.services["restaurants"]["wanted"]:
            observations.heal_seconds = round(time.monotonic() - killed, 2)
            observations.note(f"demo: healed {observations.heal_seconds} s after the kill")
            return


async def slow_down(mesh: Mesh, observations: Observations) -> None:
    """Make one replica of `restaurants` slow. The balancer should send it fewer requests."""
    for victim in reversed(ready_replicas(observations, "restaurants")):
        try:
            await mesh.set_fault(victim["address"], "slow", SLOWDOWN)
        except REQUEST_ERRORS as error:
            observations.note(f"demo: {victim['name']} does not take its fault: {error!r}")
        else:
            observations.note(f"demo: {victim['name']} becomes {SLOWDOWN} times slower")
            return


async def speed_up(mesh: Mesh, observations: Observations) -> None:
    """Remove the fault from every replica of `restaurants`."""
    for replica in ready_replicas(observations, "restaurants"):
        try:
            await mesh.set_fault(replica["address"], "none")
        except REQUEST_ERRORS as error:
            observations.note(f"demo: {replica['name']} keeps its fault: {error!r}")
    observations.note("demo: the slow replica is fast again")


async def rollout(mesh: Mesh, observations: Observations) -> None:
    """Deploy a new version of `tracking` while event streams are open."""
    observations.note("demo: tracking v1 → v2")
    began = time.monotonic()
    try:
        await mesh.deploy(TRACKING_VERSION="2")
    except MeshError as error:
        observations.rollout = f"failed: {str(error).splitlines()[-1]}"
    else:
        seconds = time.monotonic() - began
        served = await describe_requests(mesh)
        observations.rollout = f"tracking v1 → v2 under load in {seconds:.1f} s{served}"
        observations.rolled_out = True
    observations.note(f"demo: {observations.rollout}")


async def describe_requests(mesh: Mesh) -> str:
    """Return the requests to `tracking` during the rollout, as the mesh counted them; empty if it
    has no counts."""
    with contextlib.suppress(*REQUEST_ERRORS):
        (release,) = await mesh.get("/v1/projects/food/services/tracking/releases?limit=1")
        if counts := release["tally"]:
            return f"; {counts['requests']} requests meanwhile, {counts['errors']} of them failed"
    return ""


Action = Callable[[Mesh, Observations], Awaitable[None]]
ACTIONS: tuple[tuple[float, Action], ...] = (
    (KILL, kill),
    (SLOW_DOWN, slow_down),
    (ROLLOUT, rollout),
    (SPEED_UP, speed_up),
)


async def run_actions(mesh: Mesh, observations: Observations, seconds: float) -> None:
    """Run each action at its time. A slow action does not delay the next one."""

    async def run_at(fraction: float, action: Action) -> None:
        begin = observations.started + fraction * seconds
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        await action(mesh, observations)

    async with asyncio.TaskGroup() as group:
        for fraction, action in ACTIONS:
            group.create_task(run_at(fraction, action))
