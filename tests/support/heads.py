"""The attributes of parsed heads by name: compiled classes have no `__dict__`."""

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
    "request_line_unchanged",
    "unchanged",
    "upstream_head",
]
_RESPONSE = [
    "status",
    "http10",
    "kept_head",
    "client_head",
    "fast_path_ok",
    "chunked",
    "content_length",
    "body_length",
    "persistent",
    "is_event_stream",
    "keep_alive_timeout",
    "upgrade",
]


def parsed_fields(head: RequestHead | ResponseHead) -> dict[str, object]:
    """Return all attributes of a head."""
    names = _REQUEST if isinstance(head, RequestHead) else _RESPONSE
    return {name: getattr(head, name) for name in names}
