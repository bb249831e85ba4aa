"""Filters of a route under `x-mesh.routes`: maintenance, error pages, other origins, waiting page,
compression.

Part of `meshd.spec.model.route`; `meshd.publish.filters` turns them into the snapshot's form. Pages
are given as files, which `meshd.spec.reader.route_files` reads when the settings are read.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, Size
from meshd.spec.reader import filter_values, shorthand

PageSource = Annotated[str, AfterValidator(filter_values.check_page)]
"""A file with a page, or the page itself: HTML begins with `<`, JSON with `{`."""
StatusPattern = Annotated[str, AfterValidator(filter_values.check_status_pattern)]


class MaintenanceSettings(Model):
    """Maintenance mode: every request gets 503 and reaches no replica.

    - `page`: the page to send. Default: a short text
    - `retry_after`: the time after which clients may try again
    - `allow`: networks whose clients reach the service as usual
    """

    page: PageSource = ""
    retry_after: Annotated[Duration, Field(ge=1)] = 60.0
    allow: tuple[str, ...] = ()

    _many = field_validator("allow", mode="before")(shorthand.wrap_in_list)
    _allow = field_validator("allow")(filter_values.check_networks)


class CorsSettings(Model):
    """Which other origins may read responses in a browser, as in the Fetch standard.

    - `origins`: `https://app.example.com`, `https://*.example.com`, or `*` for all
    - `methods`: methods that they may use
    - `headers`: fields of requests that they may send; `*` for all
    - `expose`: fields of responses that they may read, besides the usual ones
    - `credentials`: whether their requests may carry cookies
    - `max_age`: how long a browser remembers this
    """

    origins: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = ("*",)
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: Annotated[Duration, Field(ge=0)] = 600.0

    _many = field_validator("origins", "methods", "headers", "expose", mode="before")(
        shorthand.wrap_in_list
    )
    _origins = field_validator("origins")(filter_values.check_origins)
    _names = field_validator("methods", "headers", "expose")(filter_values.check_names)

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise ValueError("credentials with the origin * would give every page the user's data")
        return self


class WaitingPageSettings(Model):
    """A page for browsers whose request waits for a first ready replica.

    - `after`: the time that a request waits before the page is sent
    - `refresh`: the time after which the page loads again
    - `page`: the page to send. Default: a built-in one
    """

    after: Annotated[Duration, Field(ge=0)] = 1.0
    refresh: Annotated[Duration, Field(ge=1)] = 2.0
    page: PageSource = ""


class CompressionSettings(Model):
    """Which responses are compressed on their way to clients that accept it.

    - `encodings`: the codings, the preferred one first
    - `types`: media types, such as `text/html` or `text/*`
    - `min_size`: smaller responses stay as they are
    """

    encodings: Annotated[tuple[Literal["zstd", "gzip"], ...], Field(min_length=1)] = (
        "zstd",
        "gzip",
    )
    types: tuple[str, ...] = (
        "text/*",
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/problem+json",
        "application/wasm",
        "application/xhtml+xml",
        "application/xml",
        "image/svg+xml",
    )
    min_size: Annotated[Size, Field(ge=0)] = 1024

    _many = field_validator("encodings", "types", mode="before")(shorthand.wrap_in_list)
    _types = field_validator("types")(filter_values.check_media_types)


class BasicAuthSettings(Model):
    """Users who may send requests, by user name and password (HTTP Basic).

    - `users`: `NAME:HASH` each, with a bcrypt hash as `meshd password` and `htpasswd -nB` print it
    - `file`: a file with one `NAME:HASH` a line, read together with the settings
    - `realm`: the name that browsers show
    """

    users: Annotated[tuple[str, ...], Field(repr=False)] = ()
    file: str = ""
    realm: str = "restricted"

    _many = field_validator("users", mode="before")(shorthand.wrap_in_list)
    _users = field_validator("users")(filter_values.check_users)
    _realm = field_validator("realm")(filter_values.check_realm)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if not self.users and not self.file:
            raise ValueError("users and file are both missing; expected one of them")
        return self


class ForwardAuthSettings(Model):
    """A service that is asked about each request: a 2xx answer lets it pass, any other one is the
    client's answer.

    - `service`: the service; `PROJECT/SERVICE` for one of another project
    - `path`: the path that it is asked at
    - `timeout`: the time for its answer, after which the request gets 503
    - `headers`: fields of its answer that are passed to the route's service
    """

    service: Annotated[str, Field(min_length=1)]
    path: str = "/"
    timeout: Annotated[Duration, Field(gt=0)] = 5.0
    headers: tuple[str, ...] = ()

    _many = field_validator("headers", mode="before")(shorthand.wrap_in_list)
    _headers = field_validator("headers")(shorthand.check_removed_headers)
    _path = field_validator("path")(filter_values.check_target)
