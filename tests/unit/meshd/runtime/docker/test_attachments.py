"""The host's interface of each interface of a container."""

import socket
from pathlib import Path

from meshd.runtime.docker.attachments import host_interfaces


def add(folder: Path, name: str, index: int, peer: int, address: str) -> None:
    (folder / name).mkdir(parents=True)
    for file, value in (("ifindex", index), ("iflink", peer), ("address", address)):
        (folder / name / file).write_text(f"{value}\n")


def test_the_peer_of_each_interface_is_found(tmp_path: Path) -> None:
    index, name = socket.if_nameindex()[0]
    add(tmp_path, "lo", 1, 1, "00:00:00:00:00:00")
    add(tmp_path, "eth0", index + 1, index, "02:42:ac:12:00:02")

    assert host_interfaces(tmp_path) == {"02:42:ac:12:00:02": name}


def test_a_container_that_has_ended_has_none(tmp_path: Path) -> None:
    assert host_interfaces(tmp_path / "gone") == {}
