"""W3C Trace Context, level 1: parse, continue or start a trace. Pure.

Used by `proxy.request.tracing` and `proxy.observe.spans`. https://www.w3.org/TR/trace-context/
"""

from collections.abc import Callable
from typing import Final, NamedTuple

_HEX: Final = b"0123456789abcdef"
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_DASH: Final = 45
"""The byte `-`."""
TRACEPARENT_LENGTH: Final = 55
"""Bytes of a version 00 value: 2 + 1 + 32 + 1 + 16 + 1 + 2."""


class TraceContext(NamedTuple):
    """One span of the proxy, in hex digits.

    - `trace_id`: 32 digits
    - `span_id`: 16 digits
    - `parent_id`: 16 digits; empty for a root span
    - `flags`: 2 digits; 01 means sampled
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    flags: bytes

    @property
    def sampled(self) -> bool:
        """Whether the trace is to be recorded, as decided upstream."""
        return bool(int(self.flags, 16) & 1)

    def header(self) -> bytes:
        """Return the `traceparent` value to forward."""
        return b"00-%b-%b-%b" % (self.trace_id, self.span_id, self.flags)


def parse_traceparent(header: bytes | None) -> tuple[bytes, bytes, bytes] | None:
    """Return (trace id, parent id, flags) of a `traceparent` value.

    None if it is not valid; a new trace must then be started. Later versions may have more fields
    at the end.
    """
    if header is None or len(header) < TRACEPARENT_LENGTH:
        return None
    if header[2] != _DASH or header[35] != _DASH or header[52] != _DASH:
        return None
    version, trace_id, parent_id, flags = header[:2], header[3:35], header[36:52], header[53:55]
    if version == b"ff" or (header + b"-")[TRACEPARENT_LENGTH] != _DASH:
        return None
    if version == b"00" and len(header) != TRACEPARENT_LENGTH:
        return None
    if (version + trace_id + parent_id + flags).translate(None, _HEX):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    return trace_id, parent_id, flags


def continue_trace(
    header: bytes | None, bits: Callable[[int], int], sample: bool = False
) -> TraceContext:
    """Return the proxy's span for a request: a child of the one in `header`, or a new root.

    A new root is sampled if `sample`. `bits(n)` returns n random bits.
    """
    span_id = b"%016x" % (bits(64) or 1)
    parent = parse_traceparent(header)
    if parent is None:
        root_flags = b"01" if sample else b"00"
        return TraceContext(b"%032x" % (bits(128) or 1), span_id, b"", root_flags)
    # Version 00 defines only the sampled flag; others must not be forwarded.
    flags = b"01" if int(parent[2], 16) & 1 else b"00"
    return TraceContext(parent[0], span_id, parent[1], flags)
