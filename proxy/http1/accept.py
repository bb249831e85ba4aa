"""Which of two forms a client would rather have an error in (RFC 9110, section 12.5.1)."""

from typing import Final

from proxy.http1.fields import split_list

_JSON: Final = b"application/json"
_TEXT: Final = b"text/plain"


def prefers_json(accept: bytes) -> bool:
    """Whether an Accept field asks for JSON rather than for plain text; of two that are equally
    welcome JSON is sent where it is named. What is not understood in it is left out."""
    if b"/" not in accept:
        return False
    wanted: dict[bytes, float] = {}
    for item in split_list(accept):
        kind, *parameters = [part.strip(b" \t") for part in item.split(b";")]
        if kind.endswith(b"+json"):
            kind = _JSON
        wanted[kind] = max(_quality(parameters), wanted.get(kind, 0.0))
    json, text = _of(_JSON, wanted), _of(_TEXT, wanted)
    return json > text or (json == text > 0.0 and _JSON in wanted)


def _of(kind: bytes, wanted: dict[bytes, float]) -> float:
    """A media type's weight: that of the most specific range which has it."""
    for known in (kind, kind.partition(b"/")[0] + b"/*", b"*/*"):
        if known in wanted:
            return wanted[known]
    return 0.0


def _quality(parameters: list[bytes]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t") == b"q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
