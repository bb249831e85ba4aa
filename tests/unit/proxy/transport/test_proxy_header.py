"""PROXY headers of both versions: read exactly, written as others read them, or refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.transport import proxy_header
from proxy.transport.proxy_header import (
    MAX_V1,
    MAX_V2,
    NO_ADDRESS,
    SIGNATURE,
    BadProxyHeader,
    ProxiedAddress,
    build_header,
    count_own,
    is_complete,
    parse_header,
)
from tests.fuzz.targets import proxy_header as check_any_bytes


def v2(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, length or len(rest)) + rest


FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 40000, 443)
SIX = (
    bytes.fromhex("20010db8" + "00" * 11 + "01")
    + bytes.fromhex("20010db8" + "00" * 11 + "02")
    + struct.pack("!HH", 1, 65535)
)
MAPPED = bytes.fromhex("00" * 10 + "ffffc0000201") * 2 + struct.pack("!HH", 7, 8)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n",
            ("192.0.2.1", 40000, "198.51.100.2", 443),
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            ("2001:db8::1", 1, "2001:db8::2", 65535),
        ),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 0\r\n", ("192.0.2.1", 0, "::1", 0)),
        (b"PROXY UNKNOWN\r\n", NO_ADDRESS),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", NO_ADDRESS),
        (v2(0x21, 0x11, FOUR), ("192.0.2.1", 40000, "198.51.100.2", 443)),
        (v2(0x21, 0x11, FOUR + b"\x04\x00\x01x"), ("192.0.2.1", 40000, "198.51.100.2", 443)),
        (v2(0x21, 0x21, SIX), ("2001:db8::1", 1, "2001:db8::2", 65535)),
        (v2(0x21, 0x21, MAPPED), ("192.0.2.1", 7, "192.0.2.1", 8)),
        (v2(0x20, 0x11, FOUR), NO_ADDRESS),
        (v2(0x20, 0x00, b""), NO_ADDRESS),
        (v2(0x21, 0x00, b"any"), NO_ADDRESS),
        (v2(0x21, 0x31, b"x" * 216), NO_ADDRESS),
    ],
)
def test_valid_headers(header: bytes, expected: tuple[object, ...]) -> None:
    assert parse_header(header) == expected
    assert read(header + b"GET / HTTP/1.1\r\n\r\n") == (header, expected)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4\r\n",
        b"PROXX TCP4 192.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 1 1\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 1 1 1\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 65536 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 01 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 -1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.1 +1 1\r\n",
        b"PROXY TCP4 \xd9\xa1.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.1 1 1\r\n",
        b"PROXY UNKNOWN" + b"x" * MAX_V1 + b"\r\n",
        v2(0x21, 0x11, FOUR[:-1]),
        v2(0x22, 0x11, FOUR),
        v2(0x11, 0x11, FOUR),
        v2(0x31, 0x11, FOUR),
        v2(0x21, 0x11, FOUR, length=MAX_V2 + 1),
        SIGNATURE[:-1] + b"!" + b"\x21\x11\x00\x0c" + FOUR,
        b"\r\n\r\nGET / HTTP/1.1",
    ],
)
def test_what_is_refused(header: bytes) -> None:
    for cut in range(1, len(header) + 1):
        with pytest.raises(BadProxyHeader):
            read(header + b"x" * 200, step=cut)


def read(data: bytes, step: int = 1 << 20) -> tuple[bytes, ProxiedAddress]:
    """Read a header from the beginning of bytes that arrive in steps."""
    header, at = b"", 0
    while not is_complete(header):
        following = data[at : at + step]
        if not following:
            raise AssertionError("the header never ends")
        count = count_own(header, following)
        header += following[:count]
        at += count
    return header, parse_header(header)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("address", "read_as"),
    [
        (("192.0.2.1", 1, "198.51.100.2", 2), ("192.0.2.1", 1, "198.51.100.2", 2)),
        (("2001:db8::1", 1, "::1", 2), ("2001:db8::1", 1, "::1", 2)),
        (("192.0.2.1", 1, "::1", 2), ("192.0.2.1", 1, "::1", 2)),
        (("192.0.2.1", 0, "", 0), ("192.0.2.1", 0, "0.0.0.0", 0)),
        (("2001:db8::1", 0, "", 0), ("2001:db8::1", 0, "::", 0)),
        (("fe80::1%eth0", 5, "", 0), ("fe80::1", 5, "::", 0)),
        (("", 0, "", 0), ("", 0, "", 0)),
        (("unknown", 9, "", 0), ("", 0, "", 0)),
    ],
)
def test_what_is_written_is_read_back(
    version: str, address: tuple[str, int, str, int], read_as: tuple[str, int, str, int]
) -> None:
    header = build_header(version, ProxiedAddress(*address))
    assert read(header + b"rest") == (header, read_as)


def test_the_forms_that_other_software_expects() -> None:
    address = ProxiedAddress("192.0.2.1", 40000, "198.51.100.2", 443)
    assert build_header("v1", address) == b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n"
    assert build_header("v2", address) == v2(0x21, 0x11, FOUR)
    assert build_header("v1") == b"PROXY UNKNOWN\r\n"
    assert build_header("v2") == v2(0x20, 0x00, b"")
    assert proxy_header.MAX_V1 == 107


@given(st.binary(max_size=200), st.integers(0, 255))
def test_any_bytes_have_one_reading(data: bytes, cut: int) -> None:
    for start in (b"", SIGNATURE + b"\x21\x11", SIGNATURE + b"\x21\x21", b"PROXY TCP4 "):
        check_any_bytes(bytes([cut]) + start + data)
