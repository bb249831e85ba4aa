"""`meshd migrate`: a daemon that does not start with the other runtime continues as before."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.cli import daemon_process
from meshd.cli.commands import migrate
from meshd.cli.daemon_process import DaemonOptions, DaemonStartError, TakeoverOptions
from tests.support.waiting import wait_until, wait_until_blocking

SUPERVISOR = """
import pathlib, signal, sys
state = pathlib.Path(sys.argv[1]).parent
def upgrade(*_):
    with (state / "upgrades").open("a") as file: file.write("x")
signal.signal(signal.SIGUSR2, upgrade)
(state / "upgrades").touch()
while True: signal.pause()
"""


@dataclass
class Answer:
    runtime: str
    generation: tuple[int, int]


@dataclass
class Daemon:
    """The API of a daemon whose answers come in this order; the last one stays. With `state`, it
    answers again only when its supervisor has counted the first upgrade: the signals of two that
    follow at once would be one."""

    answers: list[Answer] = field(default_factory=list)
    state: Path | None = None
    asked: int = 0

    async def status(self) -> Answer:
        self.asked += 1
        if self.state is not None and self.asked > 1:
            state = self.state
            await wait_until(lambda: upgrades(state) == 1, 5.0, "the first upgrade")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory whose supervisor only counts its upgrades."""
    file = tmp_path / "supervisor.json"
    config = DaemonOptions(tmp_path, "docker", ("127.0.0.1:80",), "127.0.0.1:0", 2).config()
    file.write_bytes(msgspec.json.encode(config))
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(file)])
    (tmp_path / "daemon.pid").write_text(str(process.pid))
    try:
        wait_until_blocking((tmp_path / "upgrades").exists, 10)
        yield tmp_path
    finally:
        process.kill()
        process.wait()


def upgrades(state: Path) -> int:
    return len((state / "upgrades").read_text())


TAKEN = TakeoverOptions(("shop/db",), "0.0.0.0:15779", "0.0.0.0:15778")


async def test_the_configuration_before_is_restored(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "SWITCH_SECONDS", 0.5)
    before = (state / "supervisor.json").read_bytes()
    client: Any = Daemon([Answer("docker", (3, 1))], state)
    with pytest.raises(DaemonStartError, match="the daemon continues as before"):
        await migrate._switch(client, state, TAKEN)
    assert (state / "supervisor.json").read_bytes() == before
    wait_until_blocking(lambda: upgrades(state) == 2, 5)


async def test_only_the_next_control_process_counts(state: Path) -> None:
    """One with the Swarm runtime that is about to end may still answer."""
    answers = [Answer("swarm", (3, 1)), Answer("swarm", (3, 2)), Answer("swarm", (4, 0))]
    client: Any = Daemon(answers)
    await migrate._switch(client, state, TAKEN)
    assert client.answers == [Answer("swarm", (4, 0))]
    assert daemon_process.staying_services(state) == ("shop/db",)
    wait_until_blocking(lambda: upgrades(state) == 1, 5)


async def test_without_a_daemon_nothing_is_changed(state: Path) -> None:
    (state / "daemon.pid").unlink()
    before = (state / "supervisor.json").read_bytes()
    client: Any = Daemon([Answer("docker", (3, 1))])
    with pytest.raises(DaemonStartError, match="no daemon runs in"):
        await migrate._switch(client, state, TAKEN)
    assert (state / "supervisor.json").read_bytes() == before
