"""The load of this machine since the last look."""

from pathlib import Path

import pytest

from meshd.model.node_proxy import NodeLoad
from meshd.node_proxy.host_load import HostLoad

MEMINFO = "MemTotal: 1000 kB\nMemAvailable: 400 kB\n"


def test_the_load_is_that_since_the_last_look(tmp_path: Path) -> None:
    def show(worked: int, idle: int) -> None:
        (tmp_path / "stat").write_text(f"cpu {worked} 0 0 {idle} 0 0 0 0 0 0\n")

    (tmp_path / "meminfo").write_text(MEMINFO)
    host = HostLoad(tmp_path)
    show(100, 100)
    assert host.read() is None
    show(125, 175)
    assert host.read() == NodeLoad(0.25, 0.6)
    assert host.read() is None, "no time has passed"
    show(135, 175)
    assert host.read() == NodeLoad(1.0, 0.6)


@pytest.mark.parametrize("damage", ["stat", "meminfo"])
def test_without_the_files_of_the_kernel_nothing_is_known(tmp_path: Path, damage: str) -> None:
    host = HostLoad(tmp_path)
    assert host.read() is None
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "stat").write_text("cpu 1 0 0 1 0 0 0 0 0 0\n")
    (tmp_path / damage).write_text("?")
    assert host.read() is None


def test_this_machine_has_a_load() -> None:
    host = HostLoad()
    assert host.read() is None
    found = None
    while found is None:
        found = host.read()
    assert 0.0 <= found.cpu <= 1.0
    assert 0.0 < found.memory <= 1.0
