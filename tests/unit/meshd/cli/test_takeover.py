"""The configuration of a daemon that changes from the Docker runtime to a Swarm."""

from pathlib import Path

import msgspec
import pytest

from meshd.cli import daemon_process
from meshd.cli.daemon_process import (
    DaemonOptions,
    DaemonStartError,
    TakeoverOptions,
    as_swarm,
)
from meshd.spec.model import Project, Service
from proxy.ipc.config import SupervisorConfig
from tests.support.stores import open_store

STATE = Path("/state")


def configured(runtime: str, **more: str) -> SupervisorConfig:
    options = DaemonOptions(STATE, runtime, ("127.0.0.1:80",), "127.0.0.1:0", 2, **more)  # type: ignore[arg-type]
    return options.config()


TAKEN = TakeoverOptions(("shop/db",), "0.0.0.0:15779", "0.0.0.0:15778")


def test_the_daemon_takes_over_and_then_is_one_of_a_swarm(tmp_path: Path) -> None:
    """Also: a repeated change replaces the services that stay."""
    docker = configured("docker")
    swarm = configured("swarm", node_listen="0.0.0.0:15779", peer_listen="0.0.0.0:15778")
    first = as_swarm(docker, STATE, TAKEN)
    words = first.children[0].argv
    assert words[-2:] == ("--take-over-engine", "--stays=shop/db")
    again = as_swarm(first, STATE, with_staying(TAKEN, ()))
    assert again.children[0].argv == (*words[:-1],)
    last = as_swarm(again, STATE, TakeoverOptions(None))
    assert set(last.children[0].argv) == set(swarm.children[0].argv)
    child = msgspec.structs.replace(last.children[0], argv=())
    expected = msgspec.structs.replace(swarm.children[0], argv=())
    assert msgspec.structs.replace(last, children=(child,)) == msgspec.structs.replace(
        swarm, children=(expected,)
    )


def with_staying(options: TakeoverOptions, staying: tuple[str, ...]) -> TakeoverOptions:
    return TakeoverOptions(staying, options.node_listen, options.peer_listen)


def test_the_services_that_stay_are_read_back(tmp_path: Path) -> None:
    assert daemon_process.staying_services(tmp_path) is None
    file = tmp_path / "supervisor.json"
    for config, staying in (
        (configured("docker"), None),
        (as_swarm(configured("docker"), STATE, TAKEN), ("shop/db",)),
        (as_swarm(configured("docker"), STATE, TakeoverOptions(())), ()),
    ):
        file.write_bytes(msgspec.json.encode(config))
        assert daemon_process.staying_services(tmp_path) == staying


def test_a_daemon_that_starts_again_leaves_on_the_engine_what_stays(tmp_path: Path) -> None:
    """A second container would use the same data."""
    spec = Project(name="shop", services=[Service(name="db", image="x")])
    store = open_store(tmp_path)
    store.deploy(spec, {"db": "r1"}, "me", "", 1.0)
    store.close()
    moving = as_swarm(configured("docker"), STATE, TAKEN)
    (tmp_path / "supervisor.json").write_bytes(msgspec.json.encode(moving))

    def start(runtime: str) -> SupervisorConfig:
        options = DaemonOptions(tmp_path, runtime, ("127.0.0.1:80",), "127.0.0.1:0", 2)
        return daemon_process._continue_takeover(options)

    assert "--stays=shop/db" in start("swarm").children[0].argv
    with pytest.raises(DaemonStartError, match="use --runtime swarm"):
        start("docker")
    (tmp_path / "meshd.db").unlink()  # the project was taken down
    assert "--stays=shop/db" not in start("docker").children[0].argv
