"""The filters of a route: rules that answer, change or check a request besides its routing.

Part of the snapshot (`proxy.wire.snapshot.Route.filters`), compiled by `meshd.publish.compile`, and
applied by `proxy.filters`. Field names are sent and stored, so they are a contract between
versions. Times are in seconds.
"""

from proxy.wire.frozen import Frozen


class ErrorPage(Frozen, frozen=True):
    """A page for errors that the proxy makes.

    - `status`: `503` for one status, `5xx` or `4xx` for those without one
    - `content`: HTML, or JSON if it begins with `{`
    """

    status: str
    content: str


class Maintenance(Frozen, frozen=True):
    """Answers every request with 503.

    - `page`: HTML or JSON; empty for a short text
    - `retry_after`: seconds in the Retry-After field
    - `allow`: networks in CIDR notation whose clients reach the service as usual
    """

    page: str = ""
    retry_after: int = 60
    allow: tuple[str, ...] = ()


class Cors(Frozen, frozen=True):
    """Which other origins may read the responses (the CORS protocol of the Fetch standard).

    - `origins`: `https://app.example.com`, `https://*.example.com`, or `*` for all
    - `methods`, `headers`: what requests of these origins may use; `*` in `headers` allows all
    - `expose`: further fields of responses that they may read
    - `credentials`: whether requests may carry cookies and other credentials
    - `max_age`: seconds for which browsers may remember the answer
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 600


class WaitingPage(Frozen, frozen=True):
    """A page for browsers while a request waits for a first ready replica.

    - `after`: seconds of waiting before the page is sent
    - `refresh`: seconds after which the page loads again
    - `page`: HTML; empty for the built-in page
    """

    after: float = 1.0
    refresh: int = 2
    page: str = ""


class Compression(Frozen, frozen=True):
    """Which responses are compressed, and how.

    - `encodings`: `zstd` and `gzip`, the preferred one first
    - `types`: media types, such as `text/html` or `text/*`
    - `min_size`: bytes below which a response stays as it is
    """

    encodings: tuple[str, ...] = ("zstd", "gzip")
    types: tuple[str, ...] = ()
    min_size: int = 1024


class BasicAuth(Frozen, frozen=True):
    """Users who may send requests, by user name and password.

    - `users`: (name, bcrypt hash of the password)
    - `realm`: shown by browsers
    """

    users: tuple[tuple[str, str], ...]
    realm: str = "restricted"

    def __repr__(self) -> str:
        """Return a form for logs, without the hashes."""
        return f"BasicAuth(users={[name for name, _ in self.users]!r}, realm={self.realm!r})"


class ForwardAuth(Frozen, frozen=True):
    """A service that decides whether a request may pass.

    - `service`, `path`: where it is asked
    - `timeout`: seconds for its answer, after which the request is refused
    - `response_fields`: fields of its answer that replace those of the request
    """

    service: str
    path: str = "/"
    timeout: float = 5.0
    response_fields: tuple[str, ...] = ()


class Filters(Frozen, frozen=True, omit_defaults=True):
    """All filters of a route; None or empty for those that are off."""

    maintenance: Maintenance | None = None
    error_pages: tuple[ErrorPage, ...] = ()
    cors: Cors | None = None
    waiting_page: WaitingPage | None = None
    compression: Compression | None = None
    request_start: bool = False
    basic_auth: BasicAuth | None = None
    forward_auth: ForwardAuth | None = None
