"""The health check of gRPC: one call of grpc.health.v1.Health/Check.

`meshd.discovery.probe` opens the connection. The messages are so small that they are written and
read here: a name in the request, a number in the response.
"""

import asyncio
from typing import Final

from proxy.http2 import grpc
from proxy.http2.codec import (
    Codec,
    ConnectionClosed,
    ConnectionFailed,
    DataReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)

METHOD: Final = b"/grpc.health.v1.Health/Check"
MAX_READ: Final = 16 * 1024
"""Bytes that are read at once."""
_PREFIX: Final = 5
"""Bytes before a message: whether it is compressed, and its length."""
_SERVING: Final = 1
"""HealthCheckResponse.ServingStatus."""
_STATES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_NAME_TAG: Final = b"\x0a"
"""Field 1 of HealthCheckRequest: a string."""
_STATUS_TAG: Final = 0x08
"""Field 1 of HealthCheckResponse: a number."""
_NOT_HTTP2: Final = "did not answer in HTTP/2"
_ALL: Final = 1 << 20
"""Bytes that the codec is asked for: more than a call has."""


async def check_health(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    scheme: str,
    authority: str,
    service: str,
) -> str | None:
    """Ask for the health of `service`, which may be empty: that of the whole server. Return the
    problem, for people; None if it serves."""
    codec = Codec(is_server=False)
    name = service.encode()
    message = _NAME_TAG + _varint(len(name)) + name if name else b""
    stream = codec.send_request(
        [
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":authority", authority.encode()),
            (b":path", METHOD),
            (b"content-type", grpc.CONTENT_TYPE),
            (b"te", b"trailers"),
            (b"user-agent", b"meshd-probe"),
        ],
        complete=False,
    )
    codec.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, complete=True)
    body, lines = b"", b""
    while True:
        writer.write(codec.output(_ALL))
        data = await reader.read(MAX_READ)
        if not data:
            return "closed the connection without an answer"
        try:
            events = codec.receive(data)
        except ConnectionFailed:
            return _NOT_HTTP2
        if data.startswith(b"HTTP/"):
            return _NOT_HTTP2
        for event in events:
            if isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, ResponseReceived | TrailersReceived):
                lines += b"".join(key + b": " + value + b"\r\n" for key, value in event.headers)
                if isinstance(event, TrailersReceived) or event.end_stream:
                    return describe_answer(lines, body)
            elif isinstance(event, StreamReset | ConnectionClosed):
                return "ended the call without an answer"


def describe_answer(lines: bytes, body: bytes) -> str | None:
    """Return what is wrong with an answer by its field lines and its body; None if the service is
    healthy."""
    code = grpc.find_status(lines)
    if code is None:
        return "did not answer in gRPC"
    if code == grpc.UNIMPLEMENTED:
        return f"{METHOD.decode()} is not implemented; x-mesh.health sets tcp instead"
    if code != grpc.OK:
        return f"{METHOD.decode()} answered {grpc.CODES[code]}"
    message = body[_PREFIX:]
    state = message[1] if len(message) > 1 and message[0] == _STATUS_TAG else 0
    if state == _SERVING:
        return None
    return f"{METHOD.decode()} answered {_STATES[state] if state < len(_STATES) else state}"


def _varint(number: int) -> bytes:
    """Return a number as Protocol Buffers encode it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
