"""Addresses, listening sockets, the stored snapshot and the configuration file."""

import errno
import socket
from pathlib import Path

import pytest

from proxy.ipc.address import Address, BadAddress, is_own_address, parse
from proxy.ipc.config import BadConfig, SupervisorConfig, load
from proxy.ipc.sockets import open_address
from proxy.supervisor import snapshot_file
from proxy.wire.snapshot import Generation, Route, Snapshot, Target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("example.com:8080", Address("example.com", 8080)),
        ("[::1]:443", Address("::1", 443)),
        (":8080", Address("", 8080)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("unix:/run/x.sock", Address(path="/run/x.sock")),
        ("unix:a:b", Address(path="a:b")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", "80", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "h:8o", "h:²", "::1:80", "unix:"],
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(BadAddress):
        parse(text)


def test_every_slot_has_a_socket_on_one_port() -> None:
    opened = open_address("127.0.0.1:0", 3)
    names = {one.getsockname() for one in opened.slots}
    assert len(opened.slots) == 3
    assert names == {("127.0.0.1", parse(opened.bound).port)}
    opened.close()


def test_a_taken_port_is_refused_even_to_ourselves() -> None:
    opened = open_address("127.0.0.1:0", 2)
    with pytest.raises(OSError) as refused:
        open_address(opened.bound, 2)
    assert refused.value.errno == errno.EADDRINUSE
    opened.close()
    open_address(opened.bound, 2).close()


def test_a_dead_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    opened = open_address(f"unix:{path}", 2)
    assert opened.slots[0] is opened.slots[1]
    with pytest.raises(OSError):
        open_address(f"unix:{path}", 1)
    opened.close()
    assert not path.exists()


def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError):
        open_address(f"unix:{path}", 1)
    assert path.read_text() == "data"


def test_a_stored_snapshot_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.bin"
    assert snapshot_file.load(path) is None
    kept = Snapshot(Generation(2, 3), routes=(Route("r", (Target("a/b"),)),))
    snapshot_file.save(path, Snapshot(Generation(2, 2)))
    snapshot_file.save(path, kept)
    assert snapshot_file.load(path) == kept
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot.bin"]


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x81\xa1x\x01", b"half a snap"])
def test_an_unreadable_snapshot_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "snapshot.bin"
    path.write_bytes(content)
    with pytest.raises(snapshot_file.UnreadableSnapshot):
        snapshot_file.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "truncated"),
        ('{"lisen": []}', "unknown field `lisen`"),
        ('{"workers": "two"}', "$.workers"),
        ('{"workers": 0}', "workers: 0 is not between 1 and 256"),
        ('{"children": [{"name": "x"}]}', "missing required field `argv`"),
    ],
)
def test_a_wrong_configuration_names_the_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(BadConfig, match=r"config\.json") as refused:
        load(str(path))
    assert said in str(refused.value)


def test_a_configuration_without_file() -> None:
    with pytest.raises(BadConfig, match="No such file"):
        load("/nowhere/config.json")
    assert SupervisorConfig().workers == 1


def test_addresses_of_this_host() -> None:
    assert is_own_address("127.0.0.1")
    assert is_own_address("127.9.9.9")
    assert not is_own_address("192.0.2.77")
    assert not is_own_address("2001:db8::77")
