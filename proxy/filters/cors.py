"""Requests from other origins: the answer to a preflight, and the fields of other responses. Pure.

Used by `proxy.filters.compiled`. The rules are those of the Fetch standard, section 3.2 (CORS
protocol). The setting is the only authority: what the service says about other origins is removed.
"""

import re
from typing import Final

from proxy.http1.fields import split_list
from proxy.http1.request import RequestHead
from proxy.wire.filters import Cors

ANY: Final = "*"
_PREFIX: Final = b"Access-Control-"
OWN_FIELDS: Final = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-expose-headers",
    }
)
"""Fields of a service's response that the setting replaces."""
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MAX_REQUESTED: Final = 100
"""Fields that one preflight may ask for; browsers ask for a few."""


def is_preflight(head: RequestHead) -> bool:
    """Return whether a request asks if another one would be allowed."""
    return (
        head.method == b"OPTIONS"
        and head.field(b"origin") is not None
        and head.field(b"access-control-request-method") is not None
    )


class CorsPolicy:
    """The compiled setting of a route."""

    def __init__(self, config: Cors) -> None:
        self._config = config
        self._any = ANY in config.origins
        self._origins = re.compile(
            b"|".join(_origin_pattern(each) for each in config.origins if each != ANY) or b"(?!)"
        )
        self._varies = not self._any or config.credentials
        self._any_header = ANY in config.headers

    def _allowed(self, head: RequestHead) -> bytes:
        """Return the value of Access-Control-Allow-Origin; empty if the origin is not allowed."""
        origin = head.field(b"origin")
        if origin is None:
            return b""
        if self._any and not self._config.credentials:
            return b"*"
        return origin if self._origins.fullmatch(origin.lower()) else b""

    def response_lines(self, head: RequestHead) -> list[bytes]:
        """Return the field lines of every response to `head` that is not a preflight's."""
        lines = [b"Vary: Origin"] if self._varies else []
        allowed = self._allowed(head)
        if allowed:
            lines += self._common_lines(allowed)
            if self._config.expose:
                lines.append(_line(b"Expose-Headers", self._config.expose))
        return lines

    def preflight_lines(self, head: RequestHead) -> list[bytes]:
        """Return the field lines of the answer to a preflight. An origin, method or field that is
        not allowed is simply missing in it, and the browser does not send the request."""
        config = self._config
        lines = [
            b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
        allowed = self._allowed(head)
        if not allowed:
            return lines
        lines += self._common_lines(allowed)
        lines.append(_line(b"Allow-Methods", config.methods))
        if self._any_header:
            requested = split_list(head.field(b"access-control-request-headers") or b"")
            valid = [name for name in requested if _TOKEN.fullmatch(name)][:_MAX_REQUESTED]
            if valid:
                lines.append(_PREFIX + b"Allow-Headers: " + b", ".join(valid))
        elif config.headers:
            lines.append(_line(b"Allow-Headers", config.headers))
        lines.append(_PREFIX + b"Max-Age: %d" % config.max_age)
        return lines

    def _common_lines(self, allowed: bytes) -> list[bytes]:
        lines = [_PREFIX + b"Allow-Origin: " + allowed]
        if self._config.credentials:
            lines.append(_PREFIX + b"Allow-Credentials: true")
        return lines


def _line(name: bytes, values: tuple[str, ...]) -> bytes:
    return _PREFIX + name + b": " + ", ".join(values).encode()


def _origin_pattern(origin: str) -> bytes:
    """Return a pattern for an origin; `*.` matches one or more labels."""
    pattern = re.escape(origin.lower().encode())
    return pattern.replace(rb"\*\.", rb"(?:[a-z0-9_-]+\.)+")
