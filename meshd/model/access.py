"""Who may use the API: roles, tokens, and the records of what was changed. Pure.

`meshd.store.tokens` and `meshd.store.audit` keep them; `meshd.api.access` checks requests.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from meshd.model.base import RequestBody, Value

MAX_NAME = 100
"""Characters of a token's name: it is shown in one line."""
MAX_LIFE = 10 * 365 * 86400.0
"""Seconds that a token may be valid at most: ten years, so that no date overflows."""


class Role(StrEnum):
    """What a caller may do. Each role may do what the ones before it may."""

    VIEW = "view"
    """Read the state, logs and history."""
    OPERATE = "operate"
    """Scale, restart, drain, run jobs, and steer rollouts of what is deployed."""
    ADMIN = "admin"
    """Deploy and remove, read and replace data, manage tokens, and end the daemon."""

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what `other` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request.

    - `who`: user, token or certificate, for people.
    - `project`: the only project that it may use; empty: all.
    - `source`: `socket`, or the address of the client.
    """

    who: str
    role: Role
    project: str = ""
    source: str = "socket"


class Token(Value, frozen=True):
    """A token without its secret.

    - `project`: the only project that it is for; empty: all.
    - `created`, `expires`: Unix times; `expires` 0: it does not expire.
    - `who`: who created it.
    """

    id: str
    name: str
    role: Role
    project: str
    created: float
    expires: float
    who: str


class NewToken(RequestBody, frozen=True):
    """Create a token that is valid for `seconds`; 0: until it is revoked."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    role: Role = Role.VIEW
    project: str = ""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_LIFE)] = 0.0


class CreatedToken(Value, frozen=True):
    """A new token: `secret` is what the client sends, and is not stored; it is sent only once."""

    secret: str
    token: Token


class CurrentCaller(Value, frozen=True):
    """Who the daemon takes the caller for; see `Identity`."""

    who: str
    role: Role
    project: str
    source: str


class NewSignInLink(RequestBody, frozen=True):
    """Create a link that signs in to the web page once; `role` is that of the session."""

    role: Role = Role.OPERATE


class SignInLink(Value, frozen=True):
    """A link to the web page; it is valid once, for `seconds`."""

    url: str
    seconds: float


class NewSession(RequestBody, frozen=True):
    """Sign in to the web page, with the `code` of a link or with a `token`."""

    code: str = ""
    token: str = ""


class SessionKey(Value, frozen=True):
    """A new session of the web page: `key` is what the page sends with each request, in addition
    to the cookie."""

    key: str
    caller: CurrentCaller


class AuditEntry(Value, frozen=True):
    """One request that changed something, or tried to.

    - `at`: when it ended (Unix time).
    - `source`: `socket`, or the address of the client.
    - `status`: HTTP status of the response; 499: the client disconnected before.
    - `detail`: the body of small requests, or why it failed.
    """

    id: int
    at: float
    who: str
    role: Role
    source: str
    method: str
    path: str
    status: int
    detail: str = ""
