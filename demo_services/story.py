"""What happens to the application during the lunch rush, and what is seen of it."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo_services.mesh import CannotStart, Mesh

KILL, SLOW, ROLLOUT, CURED = 0.36, 0.48, 0.56, 0.75
HEAL_LIMIT = 60.0


@dataclass
class Story:
    """What was seen so far."""

    started: float
    happened: list[str] = field(default_factory=list)
    scaling: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)
    heal_seconds: float | None = None
    rollout: str = "not reached"
    rolled_out: bool = False
    event: int = 0

    def say(self, text: str) -> None:
        """Note one thing with the time into the story."""
        self.happened.append(f"{time.monotonic() - self.started:5.1f} s  {text}")


def totals(lunch: Path) -> dict[str, Any]:
    """What locust counted so far; empty before its first second is over."""
    try:
        figures: dict[str, Any] = json.loads(lunch.read_text())
    except FileNotFoundError:
        return {}
    return figures


async def watch(mesh: Mesh, story: Story, lunch: Path) -> None:
    """Follow the mesh and the clients, a few times a second, until cancelled. What happened
    before is left out."""
    while earlier := await mesh.get(f"/v1/events?since={story.event}&limit=200"):
        story.event = earlier[-1]["id"]
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            story.services = await mesh.services()
            at = round(time.monotonic() - story.started, 1)
            for name, service in story.services.items():
                story.scaling.setdefault(name, []).append((at, service["ready"]))
            for event in await mesh.get(f"/v1/events?since={story.event}&limit=200"):
                story.event = event["id"]
                story.say(f"{event['service'] or 'mesh'}: {event['text']}")
        story.clients = totals(lunch) or story.clients
        await asyncio.sleep(0.25)


def ready(story: Story, service: str) -> list[dict[str, Any]]:
    """The replicas of a service that get traffic."""
    replicas = story.services.get(service, {}).get("replicas", ())
    return [r for r in replicas if r["phase"] == "ready"]


async def kill(mesh: Mesh, story: Story) -> None:
    """Kill a replica of `restaurants`, and time how long it takes until the service has what
    it wants again."""
    victim = ready(story, "restaurants")[0]
    story.say(f"demo: kill -9 {victim['name']}")
    killed = time.monotonic()
    await mesh.fault(victim["address"], "crashing")
    while time.monotonic() - killed < HEAL_LIMIT:
        await asyncio.sleep(0.1)
        alive = {(r["name"], r["address"], r["since"]) for r in ready(story, "restaurants")}
        gone = (victim["name"], victim["address"], victim["since"]) not in alive
        if gone and len(alive) >= story.services["restaurants"]["wanted"]:
            story.heal_seconds = round(time.monotonic() - killed, 2)
            story.say(f"demo: healed {story.heal_seconds} s after the kill")
            return


async def slow(mesh: Mesh, story: Story) -> None:
    """Make one replica of `restaurants` six times slower; the balancer should avoid it."""
    victim = ready(story, "restaurants")[-1]
    story.say(f"demo: {victim['name']} becomes six times slower")
    await mesh.fault(victim["address"], "slow", 6)


async def cured(mesh: Mesh, story: Story) -> None:
    """Take the slowness back from every replica that is still there."""
    for replica in ready(story, "restaurants"):
        with contextlib.suppress(aiohttp.ClientError):
            await mesh.fault(replica["address"], "none")
    story.say("demo: the slow replica is quick again")


async def rollout(mesh: Mesh, story: Story) -> None:
    """Replace the version of `tracking` while streams are open."""
    story.say("demo: tracking v1 → v2")
    began = time.monotonic()
    try:
        await mesh.deploy(TRACKING_VERSION="2")
    except CannotStart as error:
        story.rollout = f"failed: {str(error).splitlines()[-1]}"
    else:
        took = time.monotonic() - began
        story.rollout = f"tracking v1 → v2 under load in {took:.1f} s{await served(mesh)}"
        story.rolled_out = True
    story.say(f"demo: {story.rollout}")


async def served(mesh: Mesh) -> str:
    """What `tracking` was asked meanwhile, by the mesh's own count."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        (release,) = await mesh.get("/v1/projects/food/services/tracking/releases?limit=1")
        if tally := release["tally"]:
            return f"; {tally['requests']} requests meanwhile, {tally['errors']} answered with 5xx"
    return ""


SCENES: tuple[tuple[float, Callable[[Mesh, Story], Awaitable[None]]], ...] = (
    (KILL, kill),
    (SLOW, slow),
    (ROLLOUT, rollout),
    (CURED, cured),
)


async def act(mesh: Mesh, story: Story, seconds: float) -> None:
    """Do to the application what happens to applications, each at its time; a scene that
    takes long does not hold up the next."""

    async def scene(part: float, play: Callable[[Mesh, Story], Awaitable[None]]) -> None:
        await asyncio.sleep(max(0.0, story.started + part * seconds - time.monotonic()))
        await play(mesh, story)

    async with asyncio.TaskGroup() as group:
        for part, play in SCENES:
            group.create_task(scene(part, play))
