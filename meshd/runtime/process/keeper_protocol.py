"""Messages between the keeper and its clients over `keeper.sock`.

One JSON value per line, one request per connection: the client sends a request and reads one `Done`
or `Failed`. After the `Done` of a `Watch` events follow, after that of a `Follow` output lines,
until either side closes. The socket is in a directory that only its owner may enter, so there is no
further authentication.
"""

import msgspec

from meshd.model.output import OutputLine
from meshd.model.runtime import ObservedReplica
from meshd.runtime.base import RuntimeEvent

SOCKET_NAME = "keeper.sock"
LINE_LIMIT = 16 * 1024 * 1024
"""Longest line on the socket, in bytes; the logs of a replica are far smaller."""


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process to start: `argv` is executed without a shell in `directory`.

    `environment` is complete except for PORT, which the keeper adds with the port it chose.
    """

    name: str
    project: str
    service: str
    revision: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    stop_signal: str
    labels: dict[str, str]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=str.lower):
    """Base of all requests to the keeper."""


class List(Request, frozen=True):
    """List every replica of the keeper, including ended ones."""


class Start(Request, frozen=True):
    """Start a process; answered with its replica."""

    launch: Launch


class Stop(Request, frozen=True):
    """Send the stop signal, KILL after `grace` seconds; answered once the process has ended."""

    name: str
    grace: float


class Remove(Request, frozen=True):
    """Remove an ended replica and its output."""

    name: str


class Pause(Request, frozen=True):
    """Freeze all processes of a replica."""

    name: str


class Unpause(Request, frozen=True):
    """Resume all processes of a replica."""

    name: str


class Logs(Request, frozen=True):
    """Return the last `tail` lines of output."""

    name: str
    tail: int


class TimedLogs(Request, frozen=True):
    """Return the kept lines of output with the times they were read."""

    name: str


class Watch(Request, frozen=True):
    """Stream events from now on."""


class Follow(Request, frozen=True):
    """Stream the last `tail` lines that were read at `since` (Unix time) or later, then new ones,
    each with the time when it was read."""

    name: str
    tail: int
    since: float


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out. `times`: when each of the `lines` was read, for `TimedLogs`."""

    replicas: tuple[ObservedReplica, ...] = ()
    lines: tuple[str, ...] = ()
    times: tuple[float, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request failed; `kind` is the name of an exception in `meshd.runtime.base`."""

    kind: str
    text: str


AnyRequest = List | Start | Stop | Remove | Pause | Unpause | Logs | TimedLogs | Watch | Follow

_encoder = msgspec.json.Encoder()
requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
answers: msgspec.json.Decoder[Done | Failed] = msgspec.json.Decoder(Done | Failed)
events: msgspec.json.Decoder[RuntimeEvent] = msgspec.json.Decoder(RuntimeEvent)
lines: msgspec.json.Decoder[OutputLine] = msgspec.json.Decoder(OutputLine)


def encode(value: Request | Done | Failed | RuntimeEvent | OutputLine) -> bytes:
    """Return one line of the protocol, newline included."""
    return _encoder.encode(value) + b"\n"
