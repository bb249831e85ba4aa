"""What gRPC says in fields of HTTP/2: deadlines, status codes, errors. Pure.

`proxy.request.exchange` calls it for services that speak HTTP/2. Source: the protocol in
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import re
from typing import Final

from proxy.http1.request import RequestHead

CONTENT_TYPE: Final = b"application/grpc"
CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Names of the status codes, by number."""
OK: Final = CODES.index("OK")
UNKNOWN: Final = CODES.index("UNKNOWN")
DEADLINE_EXCEEDED: Final = CODES.index("DEADLINE_EXCEEDED")
UNIMPLEMENTED: Final = CODES.index("UNIMPLEMENTED")
UNAVAILABLE: Final = CODES.index("UNAVAILABLE")
_HTTP: Final = (
    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
)  # fmt: skip
"""HTTP status with the same meaning, by code (google/rpc/code.proto)."""
_BY_REASON: Final = {
    "request-timeout": DEADLINE_EXCEEDED,
    "too-large": 8,
    "rate-limit": 8,
    "shed": 8,
    "denied": 7,
    "bad-token": 7,
    "no-route": UNIMPLEMENTED,
    "no-service": UNIMPLEMENTED,
    "protocol": 13,
    "bad-request": 13,
    "max-forwards": 13,
    "redirect": 13,
    "not-served": UNIMPLEMENTED,
}
"""Code for a response of the proxy's own by the reason of the failure; UNAVAILABLE for others."""
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_STATUS: Final = re.compile(
    rb"(?:^|\r\n)grpc-status:[ \t]*([0-9]{1,4})[ \t]*(?:\r\n|$)", re.IGNORECASE
)


def is_grpc(head: RequestHead) -> bool:
    """Return whether a request is a call of gRPC."""
    content_type = head.field(b"content-type")
    return content_type is not None and content_type.startswith(CONTENT_TYPE)


def parse_timeout(value: bytes | None) -> float:
    """Return the seconds in a `grpc-timeout` field; 0.0 for none, and for one that is not
    valid."""
    found = _TIMEOUT.fullmatch(value) if value is not None else None
    return int(found[1]) * _UNITS[found[2]] if found is not None else 0.0


def find_status(lines: bytes) -> int | None:
    """Return the status code in field lines; None if there is none. A code that is not known means
    UNKNOWN."""
    found = _STATUS.search(lines)
    if found is None:
        return None
    code = int(found[1])
    return code if code < len(CODES) else UNKNOWN


def http_status(code: int) -> int:
    """Return the HTTP status that means the same as a status code."""
    return _HTTP[code]


def code_of_failure(reason: str) -> int:
    """Return the status code for a failure that the proxy reports itself."""
    return _BY_REASON.get(reason, UNAVAILABLE)


def status_lines(code: int, text: str) -> bytes:
    """Return the field lines that end a call."""
    message = "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != ord("%") else f"%{byte:02X}"
        for byte in text.encode()
    )
    return b"Grpc-Status: %d\r\nGrpc-Message: %b\r\n" % (code, message.encode())


def build_error(code: int, text: str, extra: bytes) -> bytes:
    """Return the head of a response that has no message; `extra` holds more field lines."""
    return b"".join(
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n",
            status_lines(code, text),
            extra,
            b"\r\n",
        )
    )
