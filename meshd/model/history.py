"""The load and size of services in the past. Pure.

`meshd.telemetry.history` keeps them, `meshd.store.history` stores them, and the API,
`meshd top --at` and `meshd explain --at` show them.
"""

from meshd.model.base import Value


class HistoryPoint(Value, frozen=True):
    """A service over `step` seconds from `at` (Unix time).

    - `rps`: answers per second; `errors`: 5xx answers per second.
    - `p50`, `p95`, `p99`: latencies in seconds; None without answers.
    - `in_flight`: mean number of requests.
    - `ready`, `desired`: replicas at the end.
    - `cores`: CPU cores that its replicas used at the end.
    """

    at: int
    step: int
    rps: float
    errors: float
    p50: float | None
    p95: float | None
    p99: float | None
    in_flight: float
    ready: int
    desired: int
    cores: float


class ServiceThen(Value, frozen=True):
    """A service (`PROJECT/SERVICE`) at a time in the past."""

    service: str
    point: HistoryPoint


class Sparkline(Value, frozen=True):
    """The recent past of a service (`PROJECT/SERVICE`) in steps of `step` seconds from `first`
    (Unix time); None where nothing was recorded. Values as in `HistoryPoint`."""

    service: str
    step: int
    first: int
    rps: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    p95: tuple[float | None, ...]
    ready: tuple[int | None, ...]


class LatencyMap(Value, frozen=True):
    """How many answers of a service took how long, in steps of `step` seconds from `first` (Unix
    time).

    - `bounds`: upper bounds of the rows in seconds, ascending; the last row has no bound.
    - `counts`: for each step the number of answers in each row; empty if there were none.
    """

    step: int
    first: int
    bounds: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


class MeshThen(Value, frozen=True):
    """All services at a time in the past (Unix time); without those that have no record of it."""

    at: float
    services: tuple[ServiceThen, ...] = ()
