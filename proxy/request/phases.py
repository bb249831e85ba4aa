"""The phases of an exchange and the allowed transitions between them. Pure.

`proxy.request.exchange` and `proxy.request.fast_path` assign phases; everything else only compares
them. They are plain integers, because comparing enum members costs the fast path too much once it
is compiled. Their order matters: a request is not sent before `SENT`, and the client has no byte
of a response before `ANSWERING`.
"""

from typing import Final

PICKING: Final = 0
"""Finding the service and an endpoint: at the start, and again before a retry."""
DELAYED: Final = 1
"""A fault rule holds the request back for a fixed time."""
WAITING: Final = 2
"""In the service's queue: parked until an endpoint is ready, or queued until one has room."""
CONNECTING: Final = 3
"""An endpoint is picked; a connection to it is being opened."""
SENT: Final = 4
"""The request, or its head with a body that still arrives, is sent; no response yet."""
ANSWERING: Final = 5
"""The response head went to the client; its body follows."""
TUNNEL: Final = 6
"""After a switch of protocols: bytes pass in both directions."""
OVER: Final = 7
"""Ended, for whatever reason; everything held is returned."""

NAMES: Final[dict[int, str]] = {
    PICKING: "picking",
    DELAYED: "delayed",
    WAITING: "waiting",
    CONNECTING: "connecting",
    SENT: "sent",
    ANSWERING: "answering",
    TUNNEL: "tunnel",
    OVER: "over",
}
"""The name of each phase, in the order in which they are reached."""

TRANSITIONS: Final[dict[int, tuple[int, ...]]] = {
    PICKING: (DELAYED, WAITING, CONNECTING, SENT, OVER),
    DELAYED: (WAITING, CONNECTING, SENT, OVER),
    WAITING: (CONNECTING, SENT, OVER),
    # PICKING is a retry; SENT and CONNECTING from each other also mean that a hedge took over.
    CONNECTING: (PICKING, SENT, OVER),
    SENT: (PICKING, CONNECTING, ANSWERING, TUNNEL, OVER),
    ANSWERING: (OVER,),
    TUNNEL: (OVER,),
    OVER: (),
}
"""The phases that may follow each phase."""

FIRST: Final = PICKING
"""The phase of a new exchange."""
