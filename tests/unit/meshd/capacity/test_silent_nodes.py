"""Nothing is started on a node whose replicas do not answer."""

from typing import Any

import pytest

from meshd.capacity.silent_nodes import find_silent_nodes
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase


def replica(node: str, probe: str = "ok", **fields: Any) -> Replica:
    bad = 0 if probe == "ok" else 1
    given = {"phase": Phase.READY, "answered": True, "bad": bad, **fields}
    return Replica(f"web-{node}", "shop", "web", "r", node=node, probe=probe, **given)


GOOD = replica("m1")
SILENT = replica("w1", "no answer within 2 s")


@pytest.mark.parametrize(
    ("replicas", "nodes"),
    [
        ([GOOD, SILENT], ("w1",)),
        ([GOOD, SILENT, replica("w1", "no route to host")], ("w1",)),
        ([GOOD, SILENT, replica("w1", "connection refused")], ()),
        ([GOOD, SILENT, replica("w1")], ()),
        ([SILENT, replica("w2", "connection timed out")], ()),
        ([GOOD, replica("w1", "no answer within 2 s", answered=False)], ()),
        ([GOOD, replica("w1", "no answer within 2 s", phase=Phase.GONE)], ()),
        ([GOOD, replica("", "no answer within 2 s")], ()),
        ([GOOD, replica("w1", "GET /healthz answered 500")], ()),
    ],
    ids=["silent", "all silent", "one refuses", "one answers", "no node answers", "it never did",
         "it has ended", "no node is known", "it answers badly"],
)  # fmt: skip
def test_which_nodes_are_silent(replicas: list[Replica], nodes: tuple[str, ...]) -> None:
    assert find_silent_nodes(replicas) == nodes
