"""Live requests for a watcher: the filter, the form, and the limit.

`proxy.worker.taps` installs a `TapLog` in place of the access log while a watcher exists, so that
it costs nothing otherwise. `meshd.telemetry.tap_watcher` writes the `TapFilter` and reads the
`TapLine`s.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.observe.access_log import AccessLog, Entry

LINES_PER_SECOND: Final = 200.0
"""Lines that one worker sends to one watcher on average: more than a person can read, and less than
1 % of a busy worker's time."""
_STATUS: Final = re.compile(r"[1-5](\d\d|xx)")


class TapFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """The requests that a watcher wants. Empty or 0 means any.

    - `service`: key of the service, `PROJECT/SERVICE`.
    - `path`: a regular expression that is searched in the target.
    - `status`: a status such as `404`, or a class such as `5xx`.
    - `slower`: seconds that a request took at least.
    - `until`: Unix time at which the watcher is taken for gone, unless it says otherwise before.
    """

    service: str = ""
    path: str = ""
    status: str = ""
    slower: float = 0.0
    until: float = 0.0


class TapLine(msgspec.Struct, frozen=True):
    """One request as it is sent to a watcher; `lost`: requests before it that were left out."""

    request: Entry
    lost: int = 0


def is_status(text: str) -> bool:
    """Return whether text is a status or a class of them."""
    return _STATUS.fullmatch(text) is not None


class Matcher:
    """A compiled filter. Raises ValueError if it is not valid."""

    def __init__(self, wanted: TapFilter) -> None:
        try:
            self._path = re.compile(wanted.path) if wanted.path else None
        except re.error as error:
            raise ValueError(f"{wanted.path!r} is not a valid regular expression") from error
        if wanted.status and not is_status(wanted.status):
            raise ValueError(f"{wanted.status!r} is not a valid status; expected e.g. 404 or 5xx")
        self._wanted = wanted
        self._ports = wanted.service + ":"
        self._class = wanted.status[0] if wanted.status.endswith("xx") else ""

    def matches(self, entry: Entry) -> bool:
        """Return whether a request is wanted."""
        wanted = self._wanted
        is_service = entry.service == wanted.service or entry.service.startswith(self._ports)
        if wanted.service and not is_service:
            return False
        if wanted.status:
            status = str(entry.status)
            if status[:1] != self._class if self._class else status != wanted.status:
                return False
        if entry.total < wanted.slower:
            return False
        return self._path is None or self._path.search(entry.target) is not None


class Tap:
    """One watcher: sends it the requests that it wants, as long as it reads them.

    - `gone`: whether it does not exist any more.

    `send` sends one message without waiting; it raises BlockingIOError or another OSError.
    """

    def __init__(self, wanted: TapFilter, send: Callable[[bytes], object], now: float) -> None:
        self._matcher = Matcher(wanted)
        self._send = send
        self._lost = 0
        self._room = LINES_PER_SECOND
        self._filled_at = now
        self.gone = False

    def offer(self, entry: Entry, now: float) -> None:
        """Send a request if it is wanted; `now` in monotonic seconds."""
        if self.gone or not self._matcher.matches(entry):
            return
        grown = self._room + (now - self._filled_at) * LINES_PER_SECOND
        self._room = min(LINES_PER_SECOND, grown)
        self._filled_at = now
        if self._room < 1.0:
            self._lost += 1
            return
        try:
            self._send(msgspec.json.encode(TapLine(entry, self._lost)))
        except (ConnectionError, FileNotFoundError):
            self.gone = True
        except OSError:
            self._lost += 1
        else:
            self._room -= 1.0
            self._lost = 0


class TapLog(AccessLog):
    """An access log that shows each request to watchers, and passes on to the log behind it what
    that one wants."""

    def __init__(
        self, behind: AccessLog | None, taps: list[Tap], clock: Callable[[], float]
    ) -> None:
        super().__init__("combined")
        self._behind = behind
        self._taps = taps
        self._clock = clock
        self._passes_on = False
        if behind is not None:
            self.dropped = behind.dropped

    def should_log(self, status: int, roll: float) -> bool:
        self._passes_on = self._behind is not None and self._behind.should_log(status, roll)
        return True

    def add(self, entry: Entry) -> None:
        behind = self._behind
        if behind is not None:
            behind.redact(entry)
        now = self._clock()
        for tap in self._taps:
            tap.offer(entry, now)
        if behind is not None and self._passes_on:
            behind.add(entry)
            self.dropped = behind.dropped
