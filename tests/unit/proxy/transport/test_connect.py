"""No socket stays open that could not be used."""

import asyncio
import socket
from pathlib import Path

import pytest

from proxy.transport.connect import connect_socket, send_first


def test_the_first_bytes_are_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_first(ours, b"PROXY UNKNOWN\r\n")
        assert theirs.recv(100) == b"PROXY UNKNOWN\r\n"


def test_a_socket_whose_peer_has_gone_is_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(BrokenPipeError):
        send_first(ours, b"PROXY UNKNOWN\r\n")
    assert ours.fileno() == -1


async def test_a_socket_that_is_refused_is_closed(tmp_path: Path) -> None:
    ours = socket.socket(socket.AF_UNIX)
    with pytest.raises(FileNotFoundError):
        await connect_socket(asyncio.get_running_loop(), ours, str(tmp_path / "none.sock"))
    assert ours.fileno() == -1
