"""What the supervisor is started with: one JSON document, checked field by field."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from proxy.wire.snapshot import Snapshot

FEED_VARIABLE: Final = "MESHD_FEED_FD"


class BadConfig(Exception):
    """The configuration cannot be read or means nothing; the text names file and field."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every section: immutable, and strict about unknown fields."""


class ChildConfig(Strict, frozen=True):
    """A process that the supervisor keeps running beside the workers.

    `env` is added to the supervisor's own environment. A child that ends is started again
    after `backoff_first` seconds, doubling up to `backoff_longest`; one that ran for longer
    than `backoff_longest` starts from the first again. At the end it gets SIGTERM and, after
    `stop_seconds`, SIGKILL. With `feed` it is handed a connected feed socket as a file
    descriptor whose number is in MESHD_FEED_FD. `listen` maps an environment variable to an
    address that the supervisor opens; the variable then holds the number of the listening
    socket, which is there before the child and outlives it. With `reload` a SIGHUP is passed
    on to it.
    Children start in the order of the list and are ended in the reverse order.
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


class LogConfig(Strict, frozen=True):
    """Access log of the workers. `sample` is the share of requests written in mode
    `sampled` (failures are always written); `path` empty means standard output."""

    mode: Literal["off", "sampled", "on"] = "off"
    format: Literal["json", "combined"] = "json"
    path: str = ""
    sample: float = 0.01


class SpanConfig(Strict, frozen=True):
    """Export of spans by OTLP over HTTP; `endpoint` is a URL, empty for none. `sample` is the
    share of the requests recorded where whoever sent them has not decided; `service_name` is
    what the spans are of."""

    endpoint: str = ""
    sample: float = 0.01
    service_name: str = "meshd"


class WorkerConfig(Strict, frozen=True, omit_defaults=True):
    """What one worker process is started with; `channel` is the file descriptor of its
    socket to the supervisor, `of` the number of workers that share the load. `cells` is the
    descriptor of the memory that workers share, with `rows` rows; `row` is this worker's, -1
    when there was none left for it."""

    worker: int
    channel: int
    slot: int = 0
    of: int = 1
    cells: int = -1
    rows: int = 0
    row: int = -1
    access_log: LogConfig = LogConfig()
    spans: SpanConfig = SpanConfig()


class SupervisorConfig(Strict, frozen=True):
    """Everything the supervisor needs to know.

    `listen` holds public addresses that are opened at once and stay open; the snapshot's own
    listeners come and go with it. `state_dir` (empty: none) holds `feed.sock` and
    `snapshot.bin`. `snapshot` is served until a newer one is published or was stored.
    `drain` bounds in seconds how long
    workers may finish what they have. A worker that has not acked a snapshot within
    `ack_seconds`, or told nothing for `silence_seconds`, is replaced. With `announce` the
    supervisor prints `listening on ADDRESS` lines once every worker accepts.
    """

    listen: tuple[str, ...] = ()
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
    announce: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 256:
            raise ValueError(f"workers: {self.workers} is not between 1 and 256")
        if self.drain < 0:
            raise ValueError(f"drain: {self.drain} seconds is less than none")


def load(path: str) -> SupervisorConfig:
    """Read a configuration file. Raises BadConfig."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=SupervisorConfig)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BadConfig(f"{path}: {error}") from error
