"""Nodes on which no replica answers probes, so that nothing is started there. Pure.

`meshd.reconcile.plan` asks before it starts replicas: a Swarm places tasks on a node that is gone
until it notices that, which takes many seconds.
"""

from collections.abc import Iterable
from typing import Final

from meshd.model.replica import NO_ANSWER, Replica
from meshd.model.replica_phase import ENDED

_SILENT: Final = (NO_ANSWER, "no route to host", "network is unreachable", "connection timed out")
"""Beginnings of the text of a probe whose target's machine may be gone."""


def find_silent_nodes(replicas: Iterable[Replica]) -> tuple[str, ...]:
    """Return the nodes, by name, none of whose replicas answered the last probe, and at least one
    of which got no answer at all; none if no replica of any node answers."""
    silent: set[str] = set()
    answering: set[str] = set()
    for replica in replicas:
        if not replica.node or replica.phase in ENDED or not replica.answered:
            continue
        if replica.bad and replica.probe.startswith(_SILENT):
            silent.add(replica.node)
        else:
            answering.add(replica.node)
    return tuple(sorted(silent - answering)) if answering else ()
