"""The access log: one line per request, as JSON or in the combined format, collected in batches.

`proxy.request.accounting` adds lines; `proxy.worker.log_writer` takes batches and writes them. At
most `limit` bytes are kept in memory. Further lines are dropped and counted, because a slow disk
must not stop requests.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import unquote_plus

import msgspec

Format = Literal["json", "combined"]
MAX_PENDING: Final = 1024 * 1024
"""Bytes of lines in memory: some seconds of a busy worker."""
BATCH_SIZE: Final = 128 * 1024
"""Bytes that are worth a write, and still in the processor's caches."""
ALWAYS_LOGGED_STATUS: Final = 500
"""Responses with this status or a higher one are logged regardless of the sample."""


def _ignore() -> None:
    """Do nothing: the default of `on_batch`."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One request as an access log line shows it. Times are in seconds, sizes in bytes of the
    bodies.

    `failure` is the reason of an answer of the proxy itself, `detail` what was seen, such as the
    error of a response that is not valid.
    """

    time: float
    client: str
    method: str
    target: str
    version: str
    status: int
    host: str = ""
    service: str = ""
    endpoint: str = ""
    revision: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    total: float = 0.0
    queue: float = 0.0
    connect: float = 0.0
    first_byte: float = 0.0
    body: float = 0.0
    retries: int = 0
    failure: str = ""
    detail: str = ""
    request_id: str = ""
    trace_id: str = ""
    referer: str = ""
    user_agent: str = ""


class AccessLog:
    """Formats and collects access log lines.

    - `as_json`: whether lines are JSON
    - `hides`: whether query strings or some of their values are not logged
    - `dropped`: lines lost since the start
    - `templates`: those of `proxy.observe.log_line`, by (service, endpoint, revision, version)

    `sample` is the share of requests that are logged, 0 to 1. `query` says whether the query
    strings of targets and of Referer are logged; a tuple names parameters whose values are not.
    `on_batch` is called each time a batch is worth writing.
    """

    def __init__(
        self,
        form: Format = "json",
        sample: float = 1.0,
        limit: int = MAX_PENDING,
        query: bool | tuple[str, ...] = True,
        on_batch: Callable[[], None] = _ignore,
    ) -> None:
        self.as_json = form == "json"
        self.hides = query is not True and query != ()
        self._hidden = hidden_names(query)
        self._sample = sample
        self._limit = limit
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._stamp = ""
        self._json = msgspec.json.Encoder()
        self.dropped = 0
        self._on_batch = on_batch
        self.templates: dict[tuple[str, str, str, str], bytes] = {}

    def should_log(self, status: int, roll: float) -> bool:
        """Return whether to log a request; `roll` is a random number in [0, 1)."""
        return roll < self._sample or status >= ALWAYS_LOGGED_STATUS

    def must_redact(self, target: bytes, referer: bytes | None) -> bool:
        """Return whether `add` may have to redact a line with these values, if `hides` is set."""
        return b"?" in target or bool(referer)

    def add(self, entry: Entry) -> None:
        """Format an entry and add the line."""
        if self._size >= self._limit:
            self.dropped += 1
            return
        self.redact(entry)
        self._append(self._json.encode(entry) if self.as_json else self._combined(entry))

    def redact(self, entry: Entry) -> None:
        """Remove from an entry what is not logged of query strings."""
        if self.hides:
            entry.target = redact_query(entry.target, self._hidden)
            entry.referer = redact_query(entry.referer, self._hidden)

    def add_line(self, line: bytes) -> None:
        """Add a formatted line."""
        if self._size >= self._limit:
            self.dropped += 1
        else:
            self._append(line)

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        before = self._size
        self._size = after = before + len(line) + 1
        if before < BATCH_SIZE <= after:
            self._on_batch()

    @property
    def pending_bytes(self) -> int:
        """Bytes collected and not taken yet."""
        return self._size

    def take(self) -> bytes:
        """Remove and return the collected lines; empty if there are none."""
        if not self._lines:
            return b""
        batch = b"\n".join(self._lines) + b"\n"
        self._lines.clear()
        self._size = 0
        return batch

    def _combined(self, entry: Entry) -> bytes:
        request = f"{entry.method} {entry.target} {entry.version}"
        return (
            f"{entry.client or '-'} - - [{self._format_time(entry.time)}] {quote(request)}"
            f" {entry.status} {entry.bytes_out or '-'}"
            f" {quote(entry.referer or '-')} {quote(entry.user_agent or '-')}"
        ).encode()

    def _format_time(self, time: float) -> str:
        second = int(time)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        return self._stamp


_SEPARATORS: Final = re.compile("([&;#?])")
"""Between the parameters of a query. Some readers split at `;`; a second `?` begins a URL in a
URL."""
_UNSAFE: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def hidden_names(query: bool | tuple[str, ...]) -> frozenset[str]:
    """Return the parameters of a `query` setting in the form that `redact_query` takes."""
    return frozenset() if isinstance(query, bool) else frozenset(name.lower() for name in query)


def redact_query(target: str, names: frozenset[str]) -> str:
    """Return a target or URL with the values of these parameters replaced by REDACTED; without
    its query if there are none. Names are in lower case and compared decoded."""
    path, question, query = target.partition("?")
    if not question:
        return target
    if not names:
        return path
    pieces = _SEPARATORS.split(query)
    for index in range(0, len(pieces), 2):
        name, equals, _ = pieces[index].partition("=")
        if equals and unquote_plus(name).strip().lower() in names:
            pieces[index] = f"{name}=REDACTED"
    return path + "?" + "".join(pieces)


_CALLER: Final = re.compile(r"((?:[a-z]+://[^/?#]*)?/\.mesh/)[^/?#]*", re.IGNORECASE)
"""The part of a target that ends with `proxy.request.resolve.TOKEN_PATH` and a token."""


def hide_token(target: str) -> str:
    """Return a target without the token in it, with which a local process shows who it is."""
    if "/.mesh/" not in target:
        return target
    found = _CALLER.match(target)
    return f"{found[1]}REDACTED{target[found.end() :]}" if found else target


def quote(text: str) -> str:
    """Return text in double quotes; escape what could end the quotes or the line."""
    return f'"{text.translate(_UNSAFE)}"'
