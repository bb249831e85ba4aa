"""A request as the flight recorder saves it.

`proxy.worker.flight_files` writes `Flight`s, `meshd.store.flight_records` reads them. The request
itself has the form of a line of the access log, as for `meshd tap`, whose filter applies too.
"""

from typing import Final

import msgspec

from proxy.http1.request import find_field
from proxy.observe.access_log import Entry, hide_token, redact_query
from proxy.observe.flight_ring import (
    BALANCED,
    HEDGE,
    LEAST_LOADED,
    ONLY,
    STICKY,
    FlightDetails,
    FlightRecord,
)
from proxy.observe.trace import parse_traceparent

CHOICES: Final = {
    BALANCED: "balanced",
    ONLY: "only",
    STICKY: "sticky",
    LEAST_LOADED: "least-loaded",
    HEDGE: "hedge",
}
"""Names of the choices of `proxy.observe.flight_ring`."""
MAX_TEXT: Final = 1024
"""Characters of a target, a Referer or a similar text in a file, so that its size is bounded."""
_NO_DETAILS: Final = FlightDetails(
    b"", False, BALANCED, (), True, 0.0, 0.0, 0.0, 0.0, 0, "", ""
)  # fmt: skip


class RecordOrder(msgspec.Struct, frozen=True):
    """Asks the workers to save what they have recorded.

    - `at`: Unix time of the order.
    - `service`: key of the service whose requests are saved; empty for all.
    - `reason`: why.
    """

    at: float
    service: str = ""
    reason: str = ""


class RecordInfo(msgspec.Struct, frozen=True):
    """One saved record.

    - `at`: Unix time at which it was saved.
    - `service`: key of the service whose requests it has; empty for all.
    - `reason`: who or what asked for it.
    - `workers`, `bytes`: number and size of the files of the proxy workers.
    """

    id: str
    at: float
    service: str = ""
    reason: str = ""
    workers: int = 0
    bytes: int = 0


class Flight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request, and how its endpoint was chosen.

    - `route`: id of its route; empty for a call between services, which `caller` made.
    - `choice`: a word of `CHOICES`; empty if no endpoint answered.
    - `algorithm`: the balancing algorithm of the service.
    - `candidates`, `load`: of how many it was chosen, and its requests in flight at that time.
    - `tried`: endpoints that failed before.
    - `reused`: whether the connection carried a request before.
    """

    request: Entry
    route: str = ""
    caller: str = ""
    choice: str = ""
    algorithm: str = ""
    candidates: int = 0
    load: int = 0
    tried: tuple[str, ...] = ()
    reused: bool = False


def describe_flight(
    record: FlightRecord, algorithm: str, wall_offset: float, hidden: frozenset[str] | None
) -> Flight:
    """Return a record in the form in which it is saved.

    - `wall_offset`: Unix time minus monotonic time, in seconds.
    - `hidden`: parameters of query strings whose values are left out; empty: all; None: none.
    """
    details = record.details
    more = details or _NO_DETAILS
    line, *fields = record.head.split(b"\r\n")
    method, _, rest = line.decode("latin-1").partition(" ")
    target, referer = hide_token(rest.partition(" ")[0]), _text(fields, b"referer")
    if hidden is not None:
        target, referer = redact_query(target, hidden), redact_query(referer, hidden)
    trace = parse_traceparent(more.trace or find_field(fields, b"traceparent"))
    endpoint = record.endpoint
    choice = ""
    if endpoint is not None:
        alone = more.choice == BALANCED and record.candidates == 1
        choice = CHOICES[ONLY if alone else more.choice]
    return Flight(
        request=Entry(
            time=record.ended - record.total + wall_offset,
            client=record.client,
            method=method[:MAX_TEXT],
            target=target[:MAX_TEXT],
            version="HTTP/2" if record.http2 else "HTTP/1.0" if more.http10 else "HTTP/1.1",
            status=record.status,
            host=_text(fields, b"host"),
            service=record.service,
            endpoint=endpoint.id if endpoint is not None else "",
            revision=endpoint.revision if endpoint is not None else "",
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            total=record.total,
            queue=more.queue,
            connect=more.connect,
            first_byte=more.first_byte if details is not None else record.total,
            body=more.body,
            retries=more.retries,
            failure=more.failure,
            detail=more.detail,
            request_id=record.request_id.decode("latin-1"),
            trace_id=trace[0].decode() if trace else "",
            referer=referer[:MAX_TEXT],
            user_agent=_text(fields, b"user-agent"),
        ),
        route=record.route,
        caller=record.caller,
        choice=choice,
        algorithm=algorithm if choice == CHOICES[BALANCED] else "",
        candidates=record.candidates,
        load=record.load,
        tried=more.tried,
        reused=more.reused,
    )


def _text(fields: list[bytes], name: bytes) -> str:
    return (find_field(fields, name) or b"").decode("latin-1")[:MAX_TEXT]
