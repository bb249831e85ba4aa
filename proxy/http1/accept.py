"""Content negotiation for responses of the proxy: JSON, plain text or a page. Pure.

The rules are those of RFC 9110, section 12.5.1. Called by
`proxy.request.downstream` and `proxy.filters.pages` when the proxy answers itself.
"""

from typing import Final

from proxy.http1.fields import split_list

_JSON: Final = b"application/json"
_TEXT: Final = b"text/plain"
_HTML: Final = b"text/html"


def accepts_html(accept: bytes) -> bool:
    """Return whether an Accept field names HTML, as browsers do for pages and not for the rest."""
    for item in split_list(accept):
        media_type, *parameters = [part.strip(b" \t") for part in item.split(b";")]
        if media_type == _HTML:
            return _parse_weight(parameters) > 0.0
    return False


def prefers_json(accept: bytes) -> bool:
    """Return whether an Accept field prefers JSON to plain text.

    On a tie, JSON wins if the field names it. Items that cannot be parsed are ignored.
    """
    if b"/" not in accept:
        return False
    weights: dict[bytes, float] = {}
    for item in split_list(accept):
        media_type, *parameters = [part.strip(b" \t") for part in item.split(b";")]
        if media_type.endswith(b"+json"):
            media_type = _JSON
        weights[media_type] = max(_parse_weight(parameters), weights.get(media_type, 0.0))
    json, text = _find_weight(_JSON, weights), _find_weight(_TEXT, weights)
    return json > text or (json == text > 0.0 and _JSON in weights)


def parse_weights(field: bytes) -> dict[bytes, float]:
    """Return the weights of the lower-case items of a field such as Accept-Encoding."""
    weights: dict[bytes, float] = {}
    for item in split_list(field):
        name, *parameters = [part.strip(b" \t") for part in item.split(b";")]
        weights[name] = _parse_weight(parameters)
    return weights


def _find_weight(media_type: bytes, weights: dict[bytes, float]) -> float:
    """Return the weight of a media type: that of the most specific range that contains it."""
    for media_range in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0


def _parse_weight(parameters: list[bytes]) -> float:
    """Return the `q` parameter, 0 to 1; 1 by default, 0 if it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t") == b"q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
