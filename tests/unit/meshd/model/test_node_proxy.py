"""How busy a machine is: what its kernel shows, averages and steps."""

import pytest

from meshd.model.node_proxy import NodeLoad, parse_cpu, parse_memory, smooth

STAT = "cpu  100 10 50 800 30 5 5 0 40 0\ncpu0 100 10 50 800 30 5 5 0 40 0\nintr 1\n"
MEMINFO = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  250 kB\nHugePages_Total: 0\n"


def test_what_the_kernel_shows() -> None:
    assert parse_cpu(STAT) == (170, 1000)
    assert parse_memory(MEMINFO) == 0.75


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2 3", "cpu a b c d e", "intr 1 2 3 4 5 6"])
def test_another_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_cpu(text)
    with pytest.raises((ValueError, KeyError)):
        parse_memory(text)


def test_the_highest_load_counts_in_steps() -> None:
    loads = [NodeLoad(0.1, 0.2), NodeLoad(0.3, 0.1), NodeLoad(0.0, 0.8), NodeLoad(1.0, 1.0)]
    assert [each.step for each in loads] == [0, 1, 3, 3]
    assert [each.is_busy for each in loads] == [False, False, False, True]


def test_an_average_follows_slowly() -> None:
    assert smooth(None, NodeLoad(1.0, 0.5), 0.1) == NodeLoad(1.0, 0.5)
    assert smooth(NodeLoad(0.0, 0.5), NodeLoad(1.0, 0.5), 0.25) == NodeLoad(0.25, 0.5)
