"""Chunked bodies: each message whole, byte by byte, and with something behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.chunked import ChunkedReader, encode_chunk
from proxy.http1.fields import BadMessage

GOOD = [
    (b"0\r\n\r\n", b"", b"0\r\n\r\n"),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"00A\r\n0123456789\r\n000\r\n\r\n", b"0123456789", b"a\r\n0123456789\r\n0\r\n\r\n"),
    (b"2;a\r\nok\r\n0;b=c\r\n\r\n", b"ok", b"2\r\nok\r\n0\r\n\r\n"),
    (b'2 ; a = "x;\\" y"\r\nok\r\n0\r\n\r\n', b"ok", b"2\r\nok\r\n0\r\n\r\n"),
    (b"1\r\n\n\r\n0\r\nX-A: b\r\n\r\n", b"\n", b"1\r\n\n\r\n0\r\nX-A: b\r\n\r\n"),
    (b"0\r\nX_Forwarded_For: x\r\nX: y\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n"),
    (b"0\r\nHost: x\r\nX: y\r\nContent-Length: 1\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n"),
]
BAD = [
    b"\r\n",
    b"x\r\n",
    b" 5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5_\r\nhello\r\n",
    b"5 x\r\nhello\r\n",
    b"5\t\r\nhello\r\n",
    b"5\nhello\n0\n\n",
    b"5\rhello\r\n",
    b"5\r\nhelloX",
    b"5\r\nhello\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"5;a\rb\r\nhello\r\n",
    b'5;a="\r\nhello\r\n',
    b"5;;\r\nhello\r\n",
    b"5;a\x00\r\nhello\r\n",
    b"fffffffffffffffff\r\n",
    b"8000000000000000\r\n",
    b"1;" + b"e" * 5000,
    b"0\r\nX : b\r\n\r\n",
    b"0\r\n X: b\r\n\r\n",
    b"0\r\nX: b\rY: c\r\n\r\n",
    b"0\r\nGET / HTTP/1.1\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 10000,
    b"0\r\nX: " + b"y" * 70000,
]


@pytest.mark.parametrize("end", [b"0\r\n", b"0\r\nX: y\r\n", b"0\r\nX: y\r\n\r"])
def test_an_incomplete_end_is_not_forwarded(end: bytes) -> None:
    """Some take the last chunk for the end, and a broken body for a whole one."""
    reader = ChunkedReader()
    assert reader.feed(b"2\r\nok\r\n" + end) == b"2\r\nok\r\n"
    assert not reader.done


def walk(message: bytes, size: int, *, raw: bool) -> tuple[bytes, ChunkedReader, bytes]:
    reader = ChunkedReader(raw=raw)
    out = b""
    for start in range(0, len(message), size):
        piece = message[start : start + size]
        if reader.done:
            return out, reader, reader.surplus + message[start:]
        out += reader.feed(piece)
    return out, reader, reader.surplus


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("message", "content", "canonical"), GOOD)
def test_good_bodies(message: bytes, content: bytes, canonical: bytes, size: int) -> None:
    for behind in (b"", b"GET / HTTP/1.1\r\n"):
        out, reader, surplus = walk(message + behind, size, raw=True)
        assert (out, reader.done, surplus) == (canonical, True, behind)
        out, reader, surplus = walk(message + behind, size, raw=False)
        assert (out, reader.done, surplus) == (content, True, behind)


@pytest.mark.parametrize("size", [1, 3, 100_000])
@pytest.mark.parametrize("message", BAD)
def test_bad_bodies_are_refused_and_never_look_complete(message: bytes, size: int) -> None:
    reader = ChunkedReader()
    out: list[bytes] = []
    with pytest.raises(BadMessage):
        feed_all(reader, message, size, out)
    assert not reader.done
    assert not b"".join(out).endswith(b"0\r\n\r\n")


def feed_all(reader: ChunkedReader, message: bytes, size: int, out: list[bytes]) -> None:
    for start in range(0, len(message), size):
        out.append(reader.feed(message[start : start + size]))


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_cut_body_is_not_complete(cut: int) -> None:
    message = b"5\r\nhello\r\n0\r\n\r\n"
    reader = ChunkedReader()
    reader.feed(message[:-cut])
    assert not reader.done


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_any_split_gives_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    message = b"".join(map(encode_chunk, pieces)) + b"0\r\n\r\n"
    reader = ChunkedReader(raw=False)
    out, start = b"", 0
    while start < len(message):
        end = data.draw(st.integers(start + 1, len(message)))
        out += reader.feed(message[start:end])
        start = end
    assert reader.done
    assert out == b"".join(pieces)
