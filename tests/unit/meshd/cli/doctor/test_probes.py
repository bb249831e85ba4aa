"""The facts that `meshd doctor` collects on this machine."""

import socket
from pathlib import Path

import pytest

from meshd.cli.doctor import probes


async def test_facts_without_a_daemon(tmp_path: Path) -> None:
    facts = await probes.collect(tmp_path / "not" / "yet", "process")
    assert facts.runtime == "process"
    assert not facts.daemon
    assert "no daemon" in facts.daemon_problem
    assert facts.file_limit > 0
    assert facts.space
    assert not facts.state_problem
    assert facts.engine == facts.engine_problem == ""


async def test_an_engine_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    facts = await probes.collect(tmp_path, "docker")
    assert str(tmp_path / "none.sock") in facts.engine_problem


def test_a_port_of_another_program() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ((found, reason),) = probes._busy_ports((port,))
        assert found == port
        assert "in use" in reason
    assert not probes._busy_ports((0,))
