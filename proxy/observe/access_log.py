"""The access log: one line a request, as JSON or in the combined format, written in batches.

Lines collect in memory, at most `limit` bytes of them; what comes on top of that is dropped and
counted, because a slow disk must not stop requests. The worker takes the batch and writes it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

Format = Literal["json", "combined"]
MAX_PENDING: Final = 1024 * 1024
BATCH_SIZE: Final = 128 * 1024
"""So many bytes are worth writing at once, and still in the processor's caches."""


def _ignore() -> None:
    """Nobody asked to be told."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One request as it is logged. Times are seconds, sizes bytes of the bodies; `failure` is
    the reason of an answer that the proxy made itself."""

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
    request_id: str = ""
    trace_id: str = ""
    referer: str = ""
    user_agent: str = ""


class AccessLog:
    """Formats and collects lines of a `sample` (0..1) of the requests. Failed requests (status
    500 and up) are always logged. `templates` are those of `proxy.observe.log_line`.
    `on_batch()` is called, when it is set, each time that enough is there to be written."""

    def __init__(
        self, form: Format = "json", sample: float = 1.0, limit: int = MAX_PENDING
    ) -> None:
        self.as_json = form == "json"
        self._sample = sample
        self._limit = limit
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._stamp = ""
        self._json = msgspec.json.Encoder()
        self.dropped = 0
        self.on_batch: Callable[[], None] = _ignore
        self.templates: dict[tuple[str, str, str], bytes] = {}

    def should_log(self, status: int, roll: float) -> bool:
        """Whether to log a request; asked before an entry is made. `roll` is in [0, 1)."""
        return roll < self._sample or status >= 500

    def add(self, entry: Entry) -> None:
        """Collects one line."""
        if self._size >= self._limit:
            self.dropped += 1
            return
        self._keep(self._json.encode(entry) if self.as_json else self._combined(entry))

    def add_line(self, line: bytes) -> None:
        """Collects a line that is made already."""
        if self._size >= self._limit:
            self.dropped += 1
        else:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        before = self._size
        self._size = after = before + len(line) + 1
        if before < BATCH_SIZE <= after:
            self.on_batch()

    @property
    def pending_bytes(self) -> int:
        """Bytes that are collected and not yet taken."""
        return self._size

    def take(self) -> bytes:
        """The lines collected since the last call; empty when there are none."""
        if not self._lines:
            return b""
        batch = b"\n".join(self._lines) + b"\n"
        self._lines.clear()
        self._size = 0
        return batch

    def _combined(self, entry: Entry) -> bytes:
        request = f"{entry.method} {entry.target} {entry.version}"
        return (
            f"{entry.client or '-'} - - [{self._time(entry.time)}] {quote(request)}"
            f" {entry.status} {entry.bytes_out or '-'}"
            f" {quote(entry.referer or '-')} {quote(entry.user_agent or '-')}"
        ).encode()

    def _time(self, time: float) -> str:
        second = int(time)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        return self._stamp


_UNSAFE: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def quote(text: str) -> str:
    """In double quotes, with nothing in it that could end the quotes or the line."""
    return f'"{text.translate(_UNSAFE)}"'
