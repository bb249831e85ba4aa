"""Which runtime to take, and why in one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meshd.runtime.base import Runtime, RuntimeUnavailable
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.spec.model import Project

Name = Literal["docker", "process"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime that was taken; `reason` is one line for the user."""

    name: Name
    reason: str


async def choose(
    wanted: Literal["auto", "docker", "process"], projects: Sequence[Project]
) -> Choice:
    """Take the runtime that was asked for; with `auto` Docker, if an engine answers and every
    image of `projects` is there, can be pulled, or can be built from a base that can; local
    processes otherwise. Nothing is pulled or built for the answer."""
    if wanted != "auto":
        return Choice(wanted, f"{wanted} runtime, as asked for")
    docker = DockerRuntime()
    try:
        await docker.open()
        for project in projects:
            for service in project.services:
                problem = await docker.obtainable(project.name, service)
                if problem is not None:
                    return Choice("process", f"process runtime: {_one_line(problem)}")
        (node,) = await docker.nodes()
    except RuntimeUnavailable as silent:
        return Choice("process", f"process runtime: {_one_line(str(silent))}")
    finally:
        await docker.close()
    return Choice("docker", f"docker runtime: the engine on {node.name} answers and has all images")


def runtime(name: Name, state: Path) -> Runtime:
    """The runtime of that name; `state` is the directory of the keeper's socket."""
    return DockerRuntime() if name == "docker" else ProcessRuntime(state)


def _one_line(text: str) -> str:
    return " ".join(text.split())
