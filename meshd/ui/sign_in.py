"""The codes of sign-in links, and what a session's secret is made of. Made by `page`.

A link has a code that is valid for two minutes and once. The browser exchanges it for a session: a
token of the API (`meshd token ls` lists it, `meshd token revoke` ends it). Browsers send the
cookies of one port of a host to all other ports of it, where other programs listen. So the cookie
has only the first part of the token; the page keeps the rest, which no other port can read, and
sends it in a header.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshd.model.access import Identity

CODE_SECONDS: Final = 120.0
"""Seconds that a link is valid: time to open it, also on another machine."""
CODE_BYTES: Final = 32
"""Random bytes of a code: 256 bits, which cannot be guessed."""
MAX_CODES: Final = 100
"""Codes that are kept; the oldest makes room."""
SESSION_SECONDS: Final = 12 * 3600.0
"""Seconds that a session is valid: a working day."""
SESSION_NAME: Final = "web page"
"""Name of the tokens of sessions."""
KEY_LENGTH: Final = 21
"""Characters of a token that the page keeps: 126 of its 256 random bits."""


@dataclass(frozen=True, slots=True)
class _Code:
    caller: Identity
    end: float


class SignInCodes:
    """Codes that were created and not used. They are kept in memory only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, _Code] = {}

    def create(self, caller: Identity) -> str:
        """Return a new code for a session with the role and the project of `caller`."""
        now = self._clock()
        self._codes = {text: code for text, code in self._codes.items() if code.end > now}
        while len(self._codes) >= MAX_CODES:
            del self._codes[next(iter(self._codes))]
        text = secrets.token_urlsafe(CODE_BYTES)
        self._codes[text] = _Code(caller, now + CODE_SECONDS)
        return text

    def use(self, text: str) -> Identity | None:
        """Return whom a code was created for, and forget it; None if it is unknown or too old."""
        code = self._codes.pop(text, None)
        return code.caller if code is not None and code.end > self._clock() else None


def split_secret(secret: str) -> tuple[str, str]:
    """Return the part of a token for the cookie, and the part that the page keeps."""
    return secret[:-KEY_LENGTH], secret[-KEY_LENGTH:]
