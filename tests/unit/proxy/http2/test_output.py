"""What the codec has is written in pieces, a few of them together."""

import asyncio
from typing import cast

import ngh2
import pytest

from proxy.http2 import codec
from proxy.http2.codec import Codec, ConnectionFailed
from proxy.http2.output import MOST_PIECES, PIECE, write_output
from tests.unit.proxy.http2.test_codec import OK, REQUEST, connected, frames


class Transport:
    """Notes what each call gets."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []

    def write(self, data: bytes) -> None:
        self.calls.append([data])

    def writelines(self, pieces: list[bytes]) -> None:
        self.calls.append(list(pieces))


def sent(source: Codec) -> list[list[bytes]]:
    """Return what all calls get until the codec has nothing more."""
    transport = Transport()
    while write_output(source, cast("asyncio.Transport", transport)):
        pass
    return transport.calls


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE, 4 * PIECE, 7 * PIECE + 5])
def test_a_body_is_written_in_groups_of_pieces(size: int) -> None:
    server, client = connected()
    stream = client.send_request(REQUEST, complete=True)
    server.receive(client.output(1 << 20))
    body = bytes(index % 251 for index in range(size))
    server.send_response(stream, OK, complete=False)
    server.send_data(stream, body, complete=True)
    calls = sent(server)
    assert all(len(pieces) == MOST_PIECES for pieces in calls[:-1])
    lengths = [len(piece) for pieces in calls for piece in pieces]
    assert all(length == PIECE for length in lengths[:-1])
    got = [
        event.data
        for pieces in calls
        for event in client.receive(b"".join(pieces))
        if isinstance(event, codec.DataReceived)
    ]
    assert b"".join(got) == body


def test_nothing_is_written_if_there_is_nothing() -> None:
    server, _ = connected()
    assert sent(server) == []


def test_the_announcement_of_the_end_is_written() -> None:
    server, _ = connected()
    server.announce_end()
    data = b"".join(piece for pieces in sent(server) for piece in pieces)
    goaway, ping = 7, 6
    assert [kind for kind, _, _ in frames(data)] == [goaway, ping]


def test_pieces_before_a_failure_are_written() -> None:
    class Failing:
        """A connection of the library that fails at the third piece."""

        want_write = True

        def __init__(self) -> None:
            self._pieces = 0

        def data_to_send(self, limit: int) -> bytes:
            self._pieces += 1
            if self._pieces > 2:
                raise ngh2.InternalError("failed")
            return bytes(limit)

    source = Codec(is_server=True)
    source._connection = cast("ngh2.Connection", Failing())
    transport = Transport()
    with pytest.raises(ConnectionFailed):
        write_output(source, cast("asyncio.Transport", transport))
    assert transport.calls == [[bytes(PIECE)] * 2]
