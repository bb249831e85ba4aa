"""The loads of nodes: averages over half a minute, forgotten without reports."""

from meshd.model.node_proxy import NodeLoad
from meshd.runtime.node_loads import FORGET_SECONDS, NodeLoads


def test_a_burst_counts_little_and_a_lasting_load_counts() -> None:
    time = 0.0
    loads = NodeLoads(lambda: time)
    assert loads.of("w1") is None
    loads.note("W1", NodeLoad(0.0, 0.5))
    loads.note("w1", NodeLoad(1.0, 0.5))
    burst = loads.of("w1")
    assert burst is not None
    assert burst.cpu < 0.1
    for _ in range(60):
        time += 2.0
        loads.note("w1", NodeLoad(1.0, 0.5))
    lasting = loads.of("w1")
    assert lasting is not None
    assert lasting.cpu > 0.9


def test_a_node_that_reports_no_more_is_unknown() -> None:
    time = 0.0
    loads = NodeLoads(lambda: time)
    loads.note("w1", NodeLoad(1.0, 1.0))
    time = FORGET_SECONDS + 1.0
    assert loads.of("w1") is None
    loads.note("w1", NodeLoad(0.1, 0.1))
    assert loads.of("w1") == NodeLoad(0.1, 0.1), "it starts again"
