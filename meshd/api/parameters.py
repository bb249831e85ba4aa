"""Query parameters: how each is read from a request, and how the description of the API shows it.

`handlers` and its neighbours read them; `route_table` lists them; `openapi` describes them.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

MAX_DIGITS = 20
"""Digits of a number that are read at most; 2**63 has 19."""


class Parameter(Protocol):
    """One query parameter."""

    @property
    def name(self) -> str:
        """Its name in the query."""

    @property
    def text(self) -> str:
        """What it means, for people."""

    def schema(self) -> dict[str, Any]:
        """Return its JSON schema."""


@dataclass(frozen=True, slots=True)
class NumberParameter:
    """A whole number from 0 to `maximum`."""

    name: str
    default: int
    maximum: int
    text: str

    def schema(self) -> dict[str, Any]:
        """See `Parameter.schema`."""
        return {
            "type": "integer",
            "minimum": 0,
            "maximum": self.maximum,
            "default": self.default,
        }

    def read(self, request: web.Request) -> int:
        """Return its value. Raises HTTPBadRequest if it is not a number or is above `maximum`."""
        text = request.query.get(self.name, str(self.default))
        if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) > self.maximum:
            raise web.HTTPBadRequest(
                text=f"{self.name}={text[:100]!r} is not valid; expected a whole number from 0 to "
                f"{self.maximum}"
            )
        return int(text)


@dataclass(frozen=True, slots=True)
class FlagParameter:
    """0 or 1; the default is 0."""

    name: str
    text: str

    def schema(self) -> dict[str, Any]:
        """See `Parameter.schema`."""
        return {"type": "integer", "enum": [0, 1], "default": 0}

    def read(self, request: web.Request) -> bool:
        """Whether it is 1. Raises HTTPBadRequest if it is neither 0 nor 1."""
        text = request.query.get(self.name, "0")
        if text not in ("0", "1"):
            raise web.HTTPBadRequest(
                text=f"{self.name}={text[:100]!r} is not valid; expected 0 or 1"
            )
        return text == "1"


@dataclass(frozen=True, slots=True)
class TextParameter:
    """A text; the default is empty. `pattern` and `format` describe what is valid, as in a JSON
    schema; the handler checks it."""

    name: str
    text: str
    pattern: str = ""
    format: str = ""

    def schema(self) -> dict[str, Any]:
        """See `Parameter.schema`."""
        limits = {"pattern": self.pattern, "format": self.format}
        return {"type": "string", "default": ""} | {k: v for k, v in limits.items() if v}

    def read(self, request: web.Request) -> str:
        """Return its value; empty if it is not given."""
        return request.query.get(self.name, "")
