"""`Codec`: two of them speak to each other; limits end the connection with the right code."""

import pytest

from proxy.http2 import codec, is_available
from proxy.http2.codec import Codec, ConnectionFailed, ErrorCode

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
OK = [(b":status", b"200")]
NO_LIMIT = 1 << 24


def connected() -> tuple[Codec, Codec]:
    """A server and a client that know each other's settings."""
    server, client = Codec(is_server=True), Codec(is_server=False)
    for _ in range(2):
        server.receive(client.output(NO_LIMIT))
        client.receive(server.output(NO_LIMIT))
    return server, client


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Type, stream and payload of each frame in `data`."""
    found = []
    while data:
        size = int.from_bytes(data[:3])
        found.append((data[3], int.from_bytes(data[5:9]), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def test_the_codec_is_available() -> None:
    assert is_available()


def test_a_request_and_its_response_pass_with_bodies_and_trailers() -> None:
    server, client = connected()
    stream = client.send_request(REQUEST, complete=False)
    client.send_data(stream, b"question", complete=True)
    asked, body = server.receive(client.output(NO_LIMIT))
    assert isinstance(asked, codec.RequestReceived)
    assert list(asked.headers) == REQUEST
    assert isinstance(body, codec.DataReceived)
    assert (body.data, body.end_stream) == (b"question", True)
    server.send_interim_response(stream, [(b":status", b"103")])
    server.send_response(stream, OK, complete=False)
    server.send_data(stream, b"answer", complete=False)
    server.send_trailers(stream, [(b"grpc-status", b"0")])
    kinds = [type(event) for event in client.receive(server.output(NO_LIMIT))]
    assert kinds[:4] == [
        codec.InformationalResponseReceived,
        codec.ResponseReceived,
        codec.DataReceived,
        codec.TrailersReceived,
    ]
    assert [type(event) for event in server.events()] == [codec.StreamClosed]


def test_a_peer_sends_more_only_after_its_bytes_were_consumed() -> None:
    server, client = connected()
    stream = client.send_request(REQUEST, complete=False)
    client.send_data(stream, bytes(2 * codec.STREAM_WINDOW), complete=True)
    received = sum(
        len(event.data)
        for event in server.receive(client.output(NO_LIMIT))
        if isinstance(event, codec.DataReceived)
    )
    assert received == codec.STREAM_WINDOW == client.unsent(stream) == client.unsent_on_all()
    server.consume(stream, codec.STREAM_WINDOW)
    client.receive(server.output(NO_LIMIT))
    client.output(NO_LIMIT)
    assert client.unsent(stream) == 0


def test_calls_for_a_stream_that_has_ended_do_nothing() -> None:
    server, client = connected()
    stream = client.send_request(REQUEST, complete=False)
    server.receive(client.output(NO_LIMIT))
    client.reset(stream, ErrorCode.CANCEL)
    server.receive(client.output(NO_LIMIT))
    server.send_interim_response(stream, [(b":status", b"103")])
    server.send_response(stream, OK, complete=False)
    server.send_data(stream, b"x", complete=False)
    server.send_trailers(stream, OK)
    server.reset(stream, ErrorCode.CANCEL)
    server.consume(stream, 0)
    assert server.unsent(stream) == 0
    assert server.output(NO_LIMIT) == b""


def test_a_field_list_beyond_the_limit_ends_the_connection() -> None:
    server, client = connected()
    large = [(b"x-%d" % number, b"v" * 4000) for number in range(40)]
    client.send_request(REQUEST + large, complete=True)
    server.last_stream = 7
    with pytest.raises(ConnectionFailed) as failed:
        server.receive(client.output(NO_LIMIT))
    assert failed.value.code == ErrorCode.ENHANCE_YOUR_CALM
    ((kind, stream, payload),) = frames(failed.value.last_bytes)
    assert (kind, stream, payload) == (7, 0, b"\0\0\0\7" + b"\0\0\0\x0b")
    assert server.receive(b"more") == []
    assert server.output(NO_LIMIT) == b""
    assert not server.has_output()


def test_a_connection_ends_in_two_steps() -> None:
    server, client = connected()
    server.announce_end()
    assert frames(server.output(NO_LIMIT)) == [(7, 0, b"\x7f\xff\xff\xff" + bytes(4))]
    assert frames(server.output(NO_LIMIT)) == [(6, 0, bytes(8))]
    late = client.send_request(REQUEST, complete=True)
    server.receive(client.output(NO_LIMIT))
    server.end()
    ((kind, _, payload),) = frames(server.output(NO_LIMIT))
    assert (kind, payload) == (7, late.to_bytes(4) + bytes(4))
    server.send_response(late, OK, complete=True)
    server.output(NO_LIMIT)
    assert codec.ConnectionClosed in [type(event) for event in server.events()]


def test_a_client_opens_no_stream_after_the_server_announced_its_end() -> None:
    server, client = connected()
    assert client.can_send_request()
    server.terminate(ErrorCode.NO_ERROR)
    client.receive(server.output(NO_LIMIT))
    assert not client.can_send_request()
    with pytest.raises(ConnectionFailed):
        client.send_request(REQUEST, complete=True)


def test_the_server_offers_extended_connect() -> None:
    _, client = connected()
    assert client.peer_settings()[8] == 1
