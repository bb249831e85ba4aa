"""The phases of a TCP session and the allowed transitions between them. Pure.

`proxy.tcp.session` assigns phases; everything else only compares them. They are plain integers
like those of `proxy.request.phases`. Their order matters: no byte passes before `OPEN`.
"""

from typing import Final

PICKING: Final = 0
"""Finding an endpoint: at the start, and again after a connection could not be opened."""
WAITING: Final = 1
"""In the service's queue: parked until an endpoint is ready, or queued until one has room."""
CONNECTING: Final = 2
"""An endpoint is picked; a connection to it is being opened."""
OPEN: Final = 3
"""Bytes pass in both directions."""
HALF_CLOSED: Final = 4
"""One direction has ended, bytes pass in the other one."""
OVER: Final = 5
"""Ended, for whatever reason; everything held is returned."""

NAMES: Final[dict[int, str]] = {
    PICKING: "picking",
    WAITING: "waiting",
    CONNECTING: "connecting",
    OPEN: "open",
    HALF_CLOSED: "half_closed",
    OVER: "over",
}
"""The name of each phase, in the order in which they are reached."""

TRANSITIONS: Final[dict[int, tuple[int, ...]]] = {
    PICKING: (WAITING, CONNECTING, OVER),
    WAITING: (CONNECTING, OVER),
    # PICKING is another attempt, at another endpoint.
    CONNECTING: (PICKING, OPEN, OVER),
    OPEN: (HALF_CLOSED, OVER),
    HALF_CLOSED: (OVER,),
    OVER: (),
}
"""The phases that may follow each phase."""

FIRST: Final = PICKING
"""The phase of a new session."""
