"""W3C trace context, level 1: read, continued, or started. https://www.w3.org/TR/trace-context/"""

from collections.abc import Callable
from typing import Final, NamedTuple

_HEX: Final = b"0123456789abcdef"
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
TRACEPARENT_LENGTH: Final = 55


class TraceContext(NamedTuple):
    """One span of the proxy: the trace it belongs to (32 hex digits), its own id (16), its
    parent's (16, empty for a root) and the flags (2; 01 means sampled)."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    flags: bytes

    @property
    def sampled(self) -> bool:
        """Whether someone upstream decided to record this trace."""
        return bool(int(self.flags, 16) & 1)

    def header(self) -> bytes:
        """The `traceparent` value to send on."""
        return b"00-%b-%b-%b" % (self.trace_id, self.span_id, self.flags)


def parse_traceparent(header: bytes | None) -> tuple[bytes, bytes, bytes] | None:
    """(trace id, parent id, flags) of a `traceparent` value; None where it is not valid, in
    which case a new trace is to be started. Later versions may have more fields at the end."""
    if header is None or len(header) < TRACEPARENT_LENGTH:
        return None
    if header[2] != 45 or header[35] != 45 or header[52] != 45:
        return None
    version, trace_id, parent_id, flags = header[:2], header[3:35], header[36:52], header[53:55]
    if version == b"ff" or (header + b"-")[TRACEPARENT_LENGTH] != 45:
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
    """The proxy's span for a request: a child of what `header` names, or a new root, which is
    sampled if `sample`. `bits(n)` gives n random bits."""
    span_id = b"%016x" % (bits(64) or 1)
    parent = parse_traceparent(header)
    if parent is None:
        return TraceContext(b"%032x" % (bits(128) or 1), span_id, b"", b"01" if sample else b"00")
    # Only the sampled flag is known to version 00; the others are not to be passed on.
    return TraceContext(parent[0], span_id, parent[1], b"01" if int(parent[2], 16) & 1 else b"00")
