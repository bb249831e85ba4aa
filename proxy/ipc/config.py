"""The configuration of supervisor and workers: JSON documents, checked field by field.

The control plane (`meshd.standalone`, `meshd.cli`) writes the supervisor's; the supervisor writes
one for each worker.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from proxy.wire.snapshot import Listener, Snapshot

FEED_VARIABLE: Final = "MESHD_FEED_FD"
"""Environment variable with the descriptor of a child's feed connection."""
MAX_WORKERS: Final = 256
"""More workers than cores do not help; the largest common machines have about this many."""

TICKET_SECONDS: Final = 12 * 3600.0
"""A stolen secret opens the sessions that were resumed with it, of two such times at most: OpenSSL
advises to change it at least daily."""


class BadConfig(Exception):
    """The configuration cannot be read or is not valid; the message names file and field."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every section: immutable; unknown fields are errors."""


class ChildConfig(Strict, frozen=True):
    """A process that the supervisor keeps running besides the workers.

    Children start in the order of the list and are stopped in the reverse order.

    - `env`: added to the supervisor's environment
    - `backoff_first`, `backoff_longest`: seconds before a restart. The backoff doubles from the
      first to the longest; a child that ran for longer than the longest starts from the first
    - `stop_seconds`: seconds between SIGTERM and SIGKILL
    - `listen`: addresses that the supervisor opens, by environment variable. The variable holds
      the descriptor of the listening socket, which is open before the child starts and outlives it
    - `feed`: whether it gets a connected feed socket; its descriptor is in MESHD_FEED_FD
    - `reload`: whether it gets SIGHUP when the supervisor does
    - `silence_seconds`: it is killed and restarted if it has given no sign of life for this long
      (`proxy.ipc.watchdog`); 0: it is not watched
    - `descriptors`: open files of the supervisor that it inherits under the same numbers
    - `upgrades`: whether an upgrade of the supervisor restarts it, so that it runs the new version
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    backoff_first: float = 0.1
    backoff_longest: float = 5.0
    stop_seconds: float = 10.0
    listen: dict[str, str] = {}
    feed: bool = False
    reload: bool = False
    silence_seconds: float = 0.0
    descriptors: tuple[int, ...] = ()
    upgrades: bool = False


class LogConfig(Strict, frozen=True):
    """Access log of the workers.

    - `sample`: share of requests logged in mode `sampled`, 0 to 1; failures are always logged
    - `path`: file to append to; empty means standard output
    - `query`: whether query strings are logged; a list names parameters whose values are not
    """

    mode: Literal["off", "sampled", "on"] = "off"
    format: Literal["json", "combined"] = "json"
    path: str = ""
    sample: float = 0.01
    query: bool | tuple[str, ...] = True


class SpanConfig(Strict, frozen=True):
    """Export of spans by OTLP over HTTP.

    - `endpoint`: URL of the collector; empty means no export
    - `sample`: share of requests sampled if the sender has not decided, 0 to 1
    - `service_name`: resource attribute `service.name` of the spans
    - `query`: as in `LogConfig`, for the attribute `url.query`
    """

    endpoint: str = ""
    sample: float = 0.01
    service_name: str = "meshd"
    query: bool | tuple[str, ...] = True


class PeerConfig(Strict, frozen=True):
    """The connections from proxy to proxy (`proxy.peer`).

    - `listen`: address for the proxies of other nodes
    - `certificate`, `authority`: files of this node's key and certificate, and of the mesh's
      authority. They may not exist yet; the address is opened when they do
    """

    listen: str
    certificate: str
    authority: str


class WorkerConfig(Strict, frozen=True, omit_defaults=True):
    """Configuration of one worker process.

    - `channel`: descriptor of its channel to the supervisor
    - `slot`: index of its listening sockets
    - `of`: number of workers that share the load
    - `cells`, `rows`: descriptor of the shared memory, and its number of rows
    - `row`: this worker's row; -1 if none was free
    - `drain`: seconds that its requests may take once it drains
    - `taps`: directory of those who watch live requests; empty for none
    - `records`: directory in which the flight recorder saves requests; empty for no recorder
    - `peer`: connections from proxy to proxy; None: there are none
    """

    worker: int
    channel: int
    slot: int = 0
    of: int = 1
    cells: int = -1
    rows: int = 0
    row: int = -1
    drain: float = 30.0
    access_log: LogConfig = LogConfig()
    spans: SpanConfig = SpanConfig()
    taps: str = ""
    records: str = ""
    peer: PeerConfig | None = None


class SupervisorConfig(Strict, frozen=True):
    """Configuration of the supervisor.

    - `listen`: public addresses that are open from start to end; listeners of the snapshot are
      opened and closed with it
    - `listeners`: settings of some of these addresses
    - `workers`: number of worker processes
    - `state_dir`: directory of `feed.sock` and `snapshot.bin`; empty means neither
    - `snapshot`: served until a newer one is published, unless a stored one exists
    - `drain`: seconds for workers to finish their requests
    - `ack_seconds`: a worker that has not acked a snapshot for this long is replaced
    - `silence_seconds`: a worker that has sent no message for this long is replaced
    - `record`: whether workers have a flight recorder; needs `state_dir`
    - `announce`: print `listening on ADDRESS` lines once every worker accepts
    - `ticket_seconds`: time for which new TLS session tickets are made with one secret
    - `peer`: connections from proxy to proxy; None: there are none
    """

    listen: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    workers: int = 1
    state_dir: str = ""
    pid_file: str = ""
    snapshot: Snapshot | None = None
    children: tuple[ChildConfig, ...] = ()
    drain: float = 30.0
    ack_seconds: float = 2.0
    silence_seconds: float = 10.0
    access_log: LogConfig = LogConfig()
    spans: SpanConfig = SpanConfig()
    record: bool = False
    announce: bool = False
    ticket_seconds: float = TICKET_SECONDS
    peer: PeerConfig | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"workers: {self.workers} is not between 1 and {MAX_WORKERS}")
        if self.drain < 0:
            raise ValueError(f"drain: {self.drain} is negative")
        if self.ticket_seconds <= 0:
            raise ValueError(f"ticket_seconds: {self.ticket_seconds} is not positive")


def load(path: str) -> SupervisorConfig:
    """Read the configuration of a supervisor. Raises BadConfig."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=SupervisorConfig)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BadConfig(f"{path}: {error}") from error
