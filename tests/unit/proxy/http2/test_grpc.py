"""Fields of gRPC: deadlines, status codes, and errors that clients can read."""

import pytest

from proxy.http1.fields import REQUEST_KINDS, FieldLineCache
from proxy.http1.request import parse_request
from proxy.http2 import grpc
from proxy.request import failure


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"10S", 10.0),
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"250m", 0.25),
        (b"100000u", 0.1),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
        (None, 0.0),
        (b"", 0.0),
        (b"S", 0.0),
        (b"123456789S", 0.0),
        (b"1s", 0.0),
        (b"-1S", 0.0),
        (b"1.5S", 0.0),
        (b"1S\n", 0.0),
    ],
)
def test_timeouts(value: bytes | None, seconds: float) -> None:
    assert grpc.parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (b"grpc-status: 0\r\n", 0),
        (b"x: 1\r\nGrpc-Status:14\r\ngrpc-message: x\r\n", 14),
        (b"HTTP/1.1 200 OK\r\ngrpc-status: 5", 5),
        (b"grpc-status: 17\r\n", 2),
        (b"x-grpc-status: 1\r\n", None),
        (b"grpc-status: \r\n", None),
        (b"grpc-status: a\r\n", None),
        (b"0\r\ngrpc-status: 3\r\n\r\n", 3),
        (b"", None),
    ],
)
def test_status_codes_in_field_lines(lines: bytes, code: int | None) -> None:
    assert grpc.find_status(lines) == code


def test_every_code_has_a_name_and_an_http_status() -> None:
    assert len(grpc.CODES) == 17
    statuses = [grpc.http_status(code) for code in range(17)]
    assert statuses[0] == 200
    assert all(status >= 400 for status in statuses[1:])
    failed = {name for name, status in zip(grpc.CODES, statuses, strict=True) if status >= 500}
    assert failed == {
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    }


def test_failures_of_the_proxy_have_a_code() -> None:
    rows = [each for each in vars(failure).values() if isinstance(each, failure.Failure)]
    reasons = {each.reason for each in rows}
    assert set(grpc._BY_REASON) <= reasons
    assert all(grpc.code_of_failure(reason) > 0 for reason in reasons)
    assert grpc.CODES[grpc.code_of_failure("request-timeout")] == "DEADLINE_EXCEEDED"
    assert grpc.CODES[grpc.code_of_failure("parked")] == "UNAVAILABLE"


def test_texts_are_encoded_for_clients() -> None:
    lines = grpc.status_lines(14, "100 % größer\n")
    assert lines == b"Grpc-Status: 14\r\nGrpc-Message: 100 %25 gr%C3%B6%C3%9Fer%0A\r\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Content-Type: application/grpc", True),
        (b"content-type: application/grpc+proto", True),
        (b"content-type: application/json", False),
        (b"x: application/grpc", False),
    ],
)
def test_what_a_call_is(line: bytes, expected: bool) -> None:
    raw = b"POST /a HTTP/1.1\r\nHost: a\r\n" + line
    assert grpc.is_grpc(parse_request(raw, FieldLineCache(REQUEST_KINDS))) == expected
