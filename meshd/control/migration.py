"""Has the replicas that a plain engine runs replaced by replicas in the Swarm, one service after
another.

Made by `meshd.daemon.wiring` while a Swarm takes over an engine (`meshd.runtime.takeover`). What is
next follows from what exists, so that it continues after a restart of the daemon. The reconciler
replaces the replicas as in an update of the service: by its order, its limits, and its drain.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import structlog

from meshd.capacity.node_drain import to_replace
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED
from meshd.model.request import ReplaceReplicas
from meshd.reconcile.loop import Reconciler
from meshd.runtime.takeover import TakeoverRuntime

_log = structlog.stdlib.get_logger(__name__)
PAUSE: Final = 0.5
"""Seconds between two looks at what is left; a replacement takes seconds."""
CAUSE: Final = "it moves from the engine of this host to the Swarm"


def dependency_order(services: Iterable[DesiredService]) -> list[str]:
    """Return the keys of services, those that others depend on first, else by name. A cycle is
    entered at its first name. Pure."""
    known = {each.key: each for each in services}
    found: dict[str, None] = {}

    def add(key: str, path: frozenset[str]) -> None:
        service = known.get(key)
        if service is None or key in found or key in path:
            return
        for name in sorted(service.spec.depends_on):
            add(f"{service.project}/{name}", path | {key})
        found[key] = None

    for key in sorted(known):
        add(key, frozenset())
    return list(found)


def choose_next(
    services: Sequence[DesiredService],
    replicas: Iterable[Replica],
    on_engine: Collection[str],
    staying: Collection[str],
) -> list[Replica]:
    """Return the replicas on the engine that are to be replaced now: those of the first service
    that has any there and does not stay. The next service follows once none is left. Pure."""
    left: dict[str, list[Replica]] = {}
    for each in replicas:
        moves = each.name in on_engine and each.managed and not each.copied
        if moves and each.phase not in ENDED and each.key not in staying:
            left.setdefault(each.key, []).append(each)
    first = next((key for key in dependency_order(services) if key in left), None)
    return to_replace(left[first]) if first is not None else []


class Migration:
    """Replaces what moves, until it is cancelled."""

    def __init__(self, runtime: TakeoverRuntime, reconciler: Reconciler) -> None:
        self._runtime = runtime
        self._reconciler = reconciler

    async def run(self) -> None:
        """Begin the next service when the one before has moved."""
        await self._reconciler.ready()
        while True:
            self.advance()
            await asyncio.sleep(PAUSE)

    def advance(self) -> None:
        """Take the next step."""
        view = self._reconciler.view()
        found = choose_next(
            view.desired.services,
            view.observed.replicas,
            self._runtime.on_engine,
            self._runtime.staying,
        )
        if found:
            names = tuple(each.name for each in found)
            _log.info("service moves to the Swarm", service=found[0].key, replicas=names)
            self._reconciler.request(ReplaceReplicas(names, CAUSE))
