"""The transport of a TLS connection, driven by a client in memory."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.tls.contexts import make_context
from proxy.tls.transport import DECRYPTED, RECORD, TOGETHER, TlsTransport
from proxy.wire.snapshot import CertificateFiles, ListenerTls
from tests.support.certificate_authority import Authority


class Carrier:
    """The transport of the encrypted bytes: notes what it is asked for."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.calls.append("together")
        self.written += pieces

    def take(self) -> bytes:
        data = b"".join(self.written)
        self.written.clear()
        return data

    def close(self) -> None:
        self.calls.append("close")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def is_closing(self) -> bool:
        return "close" in self.calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return name if name == "peername" else default


class Server:
    """The protocol of the connection: notes what it gets."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.calls: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.got.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.calls.append("lost")


class Pair:
    """A connection whose handshake is complete."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        issued = authority.issue("shop.test")
        server = make_context(ListenerTls(), CertificateFiles(issued.cert, issued.key), ())
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._from_server, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        serving = server.wrap_bio(to_server, to_client, server_side=True)
        context = authority.client_context()
        self.client = context.wrap_bio(
            self._from_server, self._to_server, server_hostname="shop.test"
        )
        for _ in range(3):
            for end in (self.client, serving):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                to_server.write(self._to_server.read())
                if end is self.client or self.client.version() is None:
                    self._from_server.write(to_client.read())
        self.carrier, self.server = Carrier(), Server()
        self.transport = TlsTransport(
            cast("asyncio.Transport", self.carrier),
            cast("asyncio.Protocol", self.server),
            serving,
            to_server,
            to_client,
        )

    def encrypt(self, data: bytes) -> bytes:
        """Return what the client sends for `data`."""
        self.client.write(data)
        return self._to_server.read()

    def end(self) -> bytes:
        """Return the client's end."""
        with pytest.raises(ssl.SSLWantReadError):
            self.client.unwrap()
        return self._to_server.read()

    def read(self) -> bytes:
        """Return what the client reads of all that was written; `<end>` for the server's end."""
        self._from_server.write(self.carrier.take())
        got = b""
        try:
            while data := self.client.read(1 << 20):
                got += data
            return got + b"<end>"
        except ssl.SSLWantReadError:
            return got
        except ssl.SSLZeroReturnError:
            return got + b"<end>"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_small_messages_both_ways(pair: Pair) -> None:
    for number in range(3):
        pair.transport.data_received(pair.encrypt(b"request %d" % number))
        pair.transport.write(b"response %d" % number)
        assert pair.read() == b"response %d" % number
    assert pair.server.got == [b"request 0", b"request 1", b"request 2"]


def test_a_response_is_one_write(pair: Pair) -> None:
    pair.transport.write(b"x" * RECORD)
    assert len(pair.carrier.written) == 1
    pair.transport.write(b"x" * (2 * RECORD + 1))
    assert len(pair.carrier.written) == 4
    assert pair.carrier.calls == ["together"]
    assert pair.read() == b"x" * (3 * RECORD + 1)


def test_a_large_response_is_written_in_groups_of_records(pair: Pair) -> None:
    data = bytes(index % 251 for index in range(2 * TOGETHER + 5))
    pair.transport.write(data)
    assert pair.carrier.calls == ["together"] * 3
    assert len(pair.carrier.written) == 2 * TOGETHER // RECORD + 1
    assert max(map(len, pair.carrier.written)) < RECORD + 100
    assert pair.read() == data


def test_pieces_are_written_together(pair: Pair) -> None:
    pair.transport.writelines([b"a" * RECORD, b"b", b"c" * RECORD])
    assert (pair.carrier.calls, len(pair.carrier.written)) == (["together"], 3)
    assert pair.read() == b"a" * RECORD + b"b" + b"c" * RECORD
    pair.transport.close()
    pair.read()
    pair.transport.writelines([b"late"])
    assert pair.carrier.written == []


def test_records_before_a_failure_are_sent_before_its_alert(pair: Pair) -> None:
    class Failing:
        """Fails at the second piece."""

        def __init__(self, inside: ssl.SSLObject) -> None:
            self._inside, self._pieces = inside, 0

        def write(self, data: bytes) -> int:
            self._pieces += 1
            if self._pieces == 2:
                raise ssl.SSLError
            return self._inside.write(data)

    pair.transport._connection = cast("ssl.SSLObject", Failing(pair.transport._connection))
    pair.transport.writelines([b"first", b"second"])
    assert pair.read() == b"first"
    assert pair.carrier.is_closing()


@pytest.mark.parametrize("size", [1, 100, RECORD, RECORD + 1, DECRYPTED, 3 * DECRYPTED + 7])
def test_what_arrives_together_is_passed_on_together(pair: Pair, size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    pair.transport.data_received(pair.encrypt(data[: size // 2]) + pair.encrypt(data))
    assert pair.server.got == [data[: size // 2] + data]


@pytest.mark.parametrize("piece", [1, 5, 6, 1000, DECRYPTED + 3])
def test_records_in_pieces(pair: Pair, piece: int) -> None:
    data = b"y" * (3000 if piece < 1000 else 100_000)
    sent = pair.encrypt(data)
    for start in range(0, len(sent), piece):
        pair.transport.data_received(sent[start : start + piece])
    assert b"".join(pair.server.got) == data
    assert not pair.carrier.is_closing()


def test_the_end_of_the_client_ends_both_sides(pair: Pair) -> None:
    pair.transport.data_received(pair.encrypt(b"last") + pair.end())
    assert pair.server.got == [b"last"]
    assert pair.server.calls == ["eof"]
    assert pair.carrier.calls == ["close"]
    assert pair.read() == b"<end>"


def test_our_end_waits_for_that_of_the_client(pair: Pair) -> None:
    pair.transport.pause_reading()
    pair.transport.write(b"bye")
    pair.transport.close()
    pair.transport.close()
    pair.transport.write(b"too late")
    assert pair.transport.is_closing()
    assert pair.carrier.calls == ["pause", "resume"]
    # What the client still sends is dropped.
    pair.transport.data_received(pair.encrypt(b"more"))
    assert pair.carrier.calls == ["pause", "resume"]
    assert pair.read() == b"bye<end>"
    pair.client.unwrap()
    pair.transport.data_received(pair._to_server.read())
    assert pair.carrier.calls[2:] == ["close"]
    assert pair.server.got == []


def test_an_end_without_notice(pair: Pair) -> None:
    assert not pair.transport.eof_received()
    assert pair.server.calls == ["eof"]
    pair.transport.connection_lost(None)
    assert pair.server.calls == ["eof", "lost"]
    pair.transport.write(b"nothing")
    assert not pair.carrier.written


def test_bytes_that_are_no_record(pair: Pair) -> None:
    pair.transport.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.server.got == []
    assert pair.carrier.calls == ["close"]
    with pytest.raises(ssl.SSLError):
        pair.read()


def test_extra_info(pair: Pair) -> None:
    info = pair.transport.get_extra_info
    assert info("peername") == "peername"
    assert info("ssl_object").version() == "TLSv1.3"
    assert info("other") is None
