"""Chooses the runtime, with a reason in one line.

Called by `meshd up` (`choose`) and by `meshd.daemon.wiring` (`make_runtime`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meshd.model.node_proxy import NodeLoad
from meshd.model.peers import PeerSettings
from meshd.runtime.base import Runtime, RuntimeUnavailable
from meshd.runtime.docker.endpoint import find_endpoint
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.runtime.takeover import TakeoverRuntime
from meshd.spec.model import Project

Name = Literal["docker", "process", "swarm"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen runtime; `reason` is one line for the user."""

    name: Name
    reason: str


async def choose(
    wanted: Literal["auto", "docker", "process", "swarm"], projects: Sequence[Project]
) -> Choice:
    """Choose the requested runtime. For `auto`, choose Docker if an engine answers and every
    image of `projects` exists, can be pulled, or can be built; local processes otherwise.
    Pulls and builds nothing. Raises BadEndpoint if Docker is requested, but the settings name no
    engine that meshd can use; RuntimeUnavailable if a Swarm is requested, but the engine is not a
    manager of one on this host."""
    if wanted == "docker":
        find_endpoint()
    if wanted == "swarm":
        return await _choose_swarm()
    if wanted != "auto":
        return Choice(wanted, f"{wanted} runtime, as requested")
    docker = DockerRuntime()
    try:
        await docker.open()
        for project in projects:
            for service in project.services:
                problem = await docker.unobtainable_reason(project.name, service)
                if problem is not None:
                    return Choice("process", f"process runtime: {_one_line(problem)}")
        (node,) = await docker.nodes()
    except RuntimeUnavailable as silent:
        return Choice("process", f"process runtime: {_one_line(str(silent))}")
    finally:
        await docker.close()
    return Choice("docker", f"docker runtime: the engine on {node.name} answers and has all images")


async def _choose_swarm() -> Choice:
    swarm = SwarmRuntime()
    try:
        await swarm.open()
        nodes = await swarm.nodes()
    finally:
        await swarm.close()
    names = ", ".join(node.name for node in nodes) or "none"
    return Choice("swarm", f"swarm runtime: {len(nodes)} nodes take replicas ({names})")


def make_runtime(
    name: Name,
    state: Path,
    may_change: Callable[[], float] | None,
    peers: Callable[[], PeerSettings],
    load_of: Callable[[str], NodeLoad | None],
    staying: Collection[str] | None = None,
) -> Runtime:
    """Create the runtime of that name; `state` is the directory of the keeper's socket.
    `may_change`: for how many seconds this process leads the others; None: there are no others.
    `peers` returns which nodes have a proxy, `load_of` how busy a node is, by its name. `staying`:
    services that stay on the engine, from which the Swarm takes over the others; None: it takes
    over nothing."""
    if name == "swarm":
        swarm = SwarmRuntime(may_change, peers, load_of)
        return swarm if staying is None else TakeoverRuntime(swarm, DockerRuntime(), staying)
    return DockerRuntime() if name == "docker" else ProcessRuntime(state)


def _one_line(text: str) -> str:
    return " ".join(text.split())
