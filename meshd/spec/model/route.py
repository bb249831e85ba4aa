"""`x-mesh.routes`: which requests a public route matches, and the policies for them.

Part of `meshd.spec.model.mesh`; `meshd.publish.compile` turns routes into the proxy's snapshot.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.acme import check_domain
from meshd.spec.model.base import Duration, Model, Percent, Share, WholeNumber
from meshd.spec.model.route_filters import (
    BasicAuthSettings,
    CompressionSettings,
    CorsSettings,
    ForwardAuthSettings,
    MaintenanceSettings,
    PageSource,
    StatusPattern,
    WaitingPageSettings,
)
from meshd.spec.reader import filter_values, shorthand


class HeaderEdits(Model):
    """Header fields to set, add and remove, in that order. Fields that frame a message and fields
    that the proxy writes itself cannot be edited.

    - `set`: fields to write, replacing existing ones; `host` is allowed
    - `add`: fields to write in addition to existing ones
    - `remove`: names of fields to remove
    """

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()

    _many = field_validator("remove", mode="before")(shorthand.wrap_in_list)
    _set = field_validator("set")(shorthand.check_header_values)
    _add = field_validator("add")(shorthand.check_added_headers)
    _remove = field_validator("remove")(shorthand.check_removed_headers)


class ResponseHeaderEdits(HeaderEdits):
    """Header fields of responses to set, add and remove.

    - `always`: also in redirects and error responses of the proxy itself. Fields that describe
      the content stay those of the response
    """

    always: bool = True


class RateLimit(Model):
    """A token bucket for each value of `key`. Each worker process counts separately.

    - `rate`: requests per second
    - `burst`: requests allowed at once. Default: the requests of one second
    - `key`: `header:NAME`, `cookie:NAME` or `address` (the client's address)
    """

    rate: Annotated[float, Field(gt=0)]
    burst: Annotated[float | None, Field(ge=1)] = None
    key: str = "address"

    _short = model_validator(mode="before")(shorthand.expand_rate_limit)
    _key = field_validator("key")(shorthand.check_rate_limit_key)


class Fault(Model):
    """Faults injected for tests.

    - `share`: the share of the requests that is affected, 0 to 1
    - `delay`: seconds to delay them
    - `abort`: the status to respond with instead of forwarding them. Default: forward them
    """

    share: Share = 1.0
    delay: Duration = 0.0
    abort: Annotated[WholeNumber, Field(ge=200, le=599)] | None = None


class RouteSpec(Model):
    """A public route to the service. The proxy's form of it is `proxy.wire.snapshot.Route`.

    - `host`: an exact host, `*.suffix`, or `*` for any host
    - `path`: a prefix of whole path segments
    - `match`: conditions that must all hold: `header:NAME`, `header:NAME=VALUE`, `cookie:NAME`
      or `cookie:NAME=VALUE`
    - `strip`: remove the route's path from the request path
    - `replace`: replace the route's path with this one
    - `redirect`: respond with this Location; `{scheme}`, `{host}`, `{path}` and `{query}` are
      replaced by those of the request
    - `redirect_status`: the status of the redirect
    - `request_headers`, `response_headers`: edits of header fields
    - `rate_limit`: a rate limit for each client
    - `fault`: faults injected for tests
    - `mirror`: a service that gets a copy of each request
    - `mirror_share`: the share of the requests that is copied
    - `paths`: `strict` refuses paths that some servers read as a path of a guarded route and others
      do not; `as-is` forwards them. Default: that of the listener, else `strict` next to a guarded
      route
    - `background`: its requests, such as those of a monitor, neither start the service from zero
      nor count as its load; without a replica they get 503
    - `client_certificate`: its requests need a verified client certificate; others get 403
    - `tls`: `auto` gets a certificate for the host from a certificate authority, see `AcmeSettings`
    - `maintenance`: answers every request with 503. Default: it does not
    - `error_pages`: pages for errors that the proxy makes, by status: `503`, `4xx` or `5xx`
    - `cors`: which other origins may read responses. Default: the service decides
    - `waiting_page`: a page for browsers while the service starts. Default: they wait
    - `compress`: compression of responses. Default: the service decides
    - `basic_auth`: users who may send requests, by password. Default: all
    - `forward_auth`: a service that decides about each request. Default: all pass
    - `request_start`: requests to the service have the time of their arrival in `X-Request-Start`
    """

    host: str = "*"
    path: str = "/"
    match: tuple[str, ...] = ()
    strip: bool = False
    replace: str = ""
    redirect: str = ""
    redirect_status: Literal[301, 302, 303, 307, 308] = 308
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: ResponseHeaderEdits = ResponseHeaderEdits()
    rate_limit: RateLimit | None = None
    fault: Fault | None = None
    mirror: str = ""
    mirror_share: Percent = 1.0
    paths: Literal["strict", "as-is"] | None = None
    background: bool = False
    client_certificate: bool = False
    tls: Literal["auto"] | None = None
    maintenance: MaintenanceSettings | None = None
    error_pages: dict[StatusPattern, PageSource] = {}
    cors: CorsSettings | None = None
    waiting_page: WaitingPageSettings | None = None
    compress: CompressionSettings | None = None
    request_start: bool = False
    basic_auth: BasicAuthSettings | None = None
    forward_auth: ForwardAuthSettings | None = None

    _short = model_validator(mode="before")(shorthand.expand_route)
    _switch = field_validator("maintenance", "waiting_page", mode="before")(
        filter_values.expand_switch
    )
    _compress = field_validator("compress", mode="before")(filter_values.expand_compression)
    _basic_auth = field_validator("basic_auth", mode="before")(filter_values.expand_basic_auth)
    _forward_auth = field_validator("forward_auth", mode="before")(
        filter_values.expand_forward_auth
    )
    _cors = field_validator("cors", mode="before")(filter_values.expand_origins)
    _host = field_validator("host")(shorthand.check_host)
    _path = field_validator("path")(shorthand.check_path)
    _many = field_validator("match", mode="before")(shorthand.wrap_in_list)
    _match = field_validator("match")(shorthand.check_match)
    _replace = field_validator("replace")(shorthand.check_replacement)
    _redirect = field_validator("redirect")(shorthand.check_redirect)

    @model_validator(mode="after")
    def _check_rewrite(self) -> Self:
        if self.strip and self.replace:
            raise ValueError("strip and replace are both set; expected one of them")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls == "auto":
            try:
                check_domain(self.host)
            except ValueError as error:
                raise ValueError(f"tls: auto needs one exact host: {error}") from error
        return self

    @property
    def key(self) -> tuple[str, ...]:
        """The host, path and conditions; unique among routes."""
        return (self.host, self.path, *sorted(self.match))

    def __str__(self) -> str:
        where = self.path if self.host == "*" else self.host + self.path
        return f"{where} ({', '.join(self.match)})" if self.match else where
