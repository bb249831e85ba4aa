"""What the parsers note of a head, by name: compiled classes do not tell it by themselves."""

from proxy.http1.request import RequestHead
from proxy.http1.response import ResponseHead

_REQUEST = [
    "raw",
    "method",
    "target",
    "lines",
    "host",
    "http10",
    "length",
    "persistent",
    "expect",
    "has_id",
    "max_forwards",
    "drop",
    "forwarded",
    "options",
    "upgrade",
    "exact",
    "untouched",
    "onward",
]
_RESPONSE = [
    "status",
    "http10",
    "kept",
    "ready",
    "plain",
    "chunked",
    "length",
    "follows",
    "persistent",
    "events",
    "idle",
    "upgrade",
]


def noted(head: RequestHead | ResponseHead) -> dict[str, object]:
    """All of it."""
    names = _REQUEST if isinstance(head, RequestHead) else _RESPONSE
    return {name: getattr(head, name) for name in names}
