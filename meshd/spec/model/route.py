"""Public routes: what is matched, and what is done to the requests of each."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, Percent, Share, WholeNumber
from meshd.spec.reader import shorthand


class HeaderEdits(Model):
    """Header fields to set (replacing), add and remove, in that order. What frames a message
    or is the proxy's own to say cannot be edited; `host` can be set."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()

    _many = field_validator("remove", mode="before")(shorthand.wrap_in_list)
    _set = field_validator("set")(shorthand.check_header_values)
    _add = field_validator("add")(shorthand.check_added_headers)
    _remove = field_validator("remove")(shorthand.check_removed_headers)


class RateLimit(Model):
    """Token bucket of each `key`: `rate` requests a second, `burst` at once (without it, those
    of one second). Each worker process counts by itself."""

    rate: Annotated[float, Field(gt=0)]
    burst: Annotated[float | None, Field(ge=1)] = None
    key: str = "address"

    _short = model_validator(mode="before")(shorthand.expand_rate_limit)
    _key = field_validator("key")(shorthand.check_rate_limit_key)


class Fault(Model):
    """What to do to a `share` of the requests: delay them, or answer them with a status."""

    share: Share = 1.0
    delay: Duration = 0.0
    abort: Annotated[WholeNumber, Field(ge=200, le=599)] | None = None


class RouteSpec(Model):
    """A public route to the service: host (exact, `*.suffix` or `*`), path prefix and what
    else must `match`, and what is done to its requests; see `proxy.wire.snapshot.Route`."""

    host: str = "*"
    path: str = "/"
    match: tuple[str, ...] = ()
    strip: bool = False
    replace: str = ""
    redirect: str = ""
    redirect_status: Literal[301, 302, 303, 307, 308] = 308
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    rate_limit: RateLimit | None = None
    fault: Fault | None = None
    mirror: str = ""
    mirror_share: Percent = 1.0

    _short = model_validator(mode="before")(shorthand.expand_route)
    _host = field_validator("host")(shorthand.check_host)
    _path = field_validator("path")(shorthand.check_path)
    _many = field_validator("match", mode="before")(shorthand.wrap_in_list)
    _match = field_validator("match")(shorthand.check_match)
    _replace = field_validator("replace")(shorthand.check_replacement)
    _redirect = field_validator("redirect")(shorthand.check_redirect)

    @model_validator(mode="after")
    def _clear(self) -> Self:
        if self.strip and self.replace:
            raise ValueError("strip and replace stand here together; expected one of them")
        return self

    @property
    def key(self) -> tuple[str, ...]:
        """What no two routes may have in common."""
        return (self.host, self.path, *sorted(self.match))

    def __str__(self) -> str:
        where = self.path if self.host == "*" else self.host + self.path
        return f"{where} ({', '.join(self.match)})" if self.match else where
