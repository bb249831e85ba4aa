"""The beginning of a TLS connection."""

import random
import ssl

import pytest

from proxy.tls.client_hello import BadHello, ClientHello, parse_client_hello


def first_bytes(name: str | None = "Shop.test", protocols: tuple[str, ...] = ()) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def split_records(data: bytes, size: int) -> bytes:
    """Send the same message in records of `size` bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2) + piece for piece in pieces)


def test_name_and_protocols_are_found() -> None:
    found = parse_client_hello(first_bytes(protocols=("h2", "http/1.1")))
    assert found == ClientHello("shop.test", (b"h2", b"http/1.1"))


def test_neither_is_required() -> None:
    assert parse_client_hello(first_bytes(None)) == ClientHello()


def test_a_part_is_not_enough() -> None:
    whole = first_bytes()
    for end in range(len(whole)):
        assert parse_client_hello(whole[:end]) is None
    assert parse_client_hello(whole + b"more") is not None


@pytest.mark.parametrize("size", [35, 100, 400])
def test_a_message_in_several_records(size: int) -> None:
    data = split_records(first_bytes(protocols=("acme-tls/1",)), size)
    assert parse_client_hello(data) == ClientHello("shop.test", (b"acme-tls/1",))
    assert parse_client_hello(data[:-1]) is None


def test_very_many_records_are_refused() -> None:
    with pytest.raises(BadHello):
        parse_client_hello(split_records(first_bytes(), 3))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x00",
        b"\x17\x03\x01\x00\x05hello",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x03\x00\x00",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        parse_client_hello(data)


def test_damaged_messages_raise_nothing_else() -> None:
    dice = random.Random(1)
    whole = first_bytes(protocols=("h2",))
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            parse_client_hello(bytes(data[: dice.randrange(1, len(data) + 1)]))
        except BadHello:
            continue
