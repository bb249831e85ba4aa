"""What has to be done to make one Swarm of some engines. Pure.

`meshd.runtime.swarm.setup.hosts` reads the facts and takes the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from typing import Final

OLDEST_API: Final = (1, 41)
"""The API version of Docker Engine 20.10, which meshd needs."""


class NodeRole(StrEnum):
    """What an engine is in a Swarm."""

    MANAGER = "manager"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One engine as it is.

    - `host`: what the user called it; `name`: its own name; `id`: of the engine, which clones of a
      machine have in common.
    - `state`: its part in a Swarm: `inactive`, `active`, or a state in which it cannot be used.
    - `role`: what it is in the Swarm; None: it is in none.
    - `managers`: ids of the managers of its Swarm that it knows.
    - `api`: newest version of its API; `live_restore`: whether its containers outlive it.
    """

    host: str
    name: str
    id: str
    state: str = "inactive"
    role: NodeRole | None = None
    managers: frozenset[str] = frozenset()
    api: tuple[int, int] = OLDEST_API
    live_restore: bool = False


class HostAction(StrEnum):
    """What is done with one host."""

    INIT = "started the Swarm"
    JOIN = "joined"
    NOTHING = "was part of it"


@dataclass(frozen=True, slots=True)
class HostStep:
    """What is done with one host, and what it is afterwards."""

    host: str
    action: HostAction
    role: NodeRole


def find_problems(hosts: Sequence[HostFacts], *, may_start: bool = True) -> list[str]:
    """Return why these engines cannot become one Swarm, one line for each reason; empty if they
    can. Without `may_start` one of them must be a manager already."""
    problems = [text for host in hosts for text in _problems_of(host)]
    problems += [
        f"{one.host} and {other.host} are the same engine"
        for one, other in combinations(hosts, 2)
        if (one.id, one.name) == (other.id, other.name)
    ]
    members = [host for host in hosts if host.role is not None]
    problems += [
        f"{one.host} and {other.host} are in different Swarms; `docker swarm leave --force` takes "
        "an engine out of its Swarm, and ends what runs there as part of it"
        for one, other in pairwise(members)
        if not one.managers & other.managers
    ]
    has_manager = any(host.role is NodeRole.MANAGER for host in members)
    if members and not has_manager:
        names = ", ".join(host.host for host in members)
        problems.append(f"{names} is in a Swarm, but none of its managers is given; name one too")
    elif not members and not may_start:
        problems.append(f"{hosts[0].host} is not part of a Swarm; `meshd bootstrap` makes one")
    return problems


def _problems_of(host: HostFacts) -> list[str]:
    problems = []
    if host.state not in ("inactive", "active"):
        problems.append(
            f"{host.host}: its part in a Swarm is {host.state!r}; `docker swarm leave --force` "
            "there, or unlock it, and try again"
        )
    if host.api < OLDEST_API:
        problems.append(
            f"{host.host}: its engine is too old; expected Docker Engine 20.10 or newer"
        )
    if host.live_restore:
        problems.append(
            f"{host.host}: live-restore is on, which an engine does not combine with a Swarm; "
            "remove it from its daemon.json and restart the engine"
        )
    return problems


def make_plan(hosts: Sequence[HostFacts], roles: Sequence[NodeRole]) -> list[HostStep]:
    """Return a step for each host, in the order in which they are taken. `roles` are those of the
    hosts that are in no Swarm yet; the others stay what they are. `find_problems` found none."""
    steps = [
        HostStep(host.host, HostAction.NOTHING, host.role)
        for host in hosts
        if host.role is not None
    ]
    for host, role in zip(hosts, roles, strict=True):
        if host.role is not None:
            continue
        if steps:
            steps.append(HostStep(host.host, HostAction.JOIN, role))
        else:
            steps.append(HostStep(host.host, HostAction.INIT, NodeRole.MANAGER))
    return steps


def usual_managers(hosts: int) -> int:
    """Return how many managers a Swarm of this size has: three of three nodes, five of seven, so
    that one or two may be lost. More make each change slower."""
    return 1 if hosts < 3 else 3 if hosts < 7 else 5
