"""Every way an exchange can fail, in one table: what the client is told, whether the endpoint is
to blame, and how a retry is judged."""

from typing import Final, NamedTuple

from proxy.policy.retry import Cause


class Failure(NamedTuple):
    """One row. `reason` is its name in metrics and logs, `text` what the client reads.

    `blame` counts it against the endpoint. `cause` is what `proxy.policy.retry` judges by; None
    where there is nothing to try again. `level` is that of its log line.
    """

    reason: str
    status: int
    text: str
    blame: bool = False
    cause: Cause | None = None
    level: str = "info"


CONNECT: Final = Failure("connect", 502, "no connection to the origin", True, "connect", "warning")
CONNECT_TIMEOUT: Final = Failure(
    "connect-timeout",
    504,
    "the origin did not accept a connection in time",
    True,
    "connect",
    "warning",
)
CLOSED: Final = Failure(
    "closed",
    502,
    "the origin closed the connection without an answer",
    True,
    "closed",
    "warning",
)
FIRST_BYTE: Final = Failure(
    "first-byte-timeout", 504, "the origin did not answer in time", True, "timeout", "warning"
)
PROTOCOL: Final = Failure(
    "protocol", 502, "the origin's answer cannot be understood", True, "protocol", "warning"
)
STATUS: Final = Failure("status", 502, "the origin answered with an error", True, "status")
BROKEN: Final = Failure("broken", 502, "the origin broke off its answer", True, "broken", "warning")
IDLE: Final = Failure("idle-timeout", 504, "the body made no progress in time", False, "broken")
REQUEST_TIMEOUT: Final = Failure("request-timeout", 504, "the request took too long", False, None)
SLOW_HEAD: Final = Failure("slow-head", 408, "the request head did not arrive in time")
SLOW_BODY: Final = Failure("slow-body", 408, "the request body did not arrive in time")
BAD_REQUEST: Final = Failure("bad-request", 400, "the request cannot be understood")
TOO_LARGE: Final = Failure("too-large", 413, "the request body is larger than is taken here")
NO_ROUTE: Final = Failure("no-route", 404, "no route matches this host and path")
NO_SERVICE: Final = Failure("no-service", 404, "no service of that name")
DENIED: Final = Failure("denied", 403, "this service may not be called from there")
BAD_TOKEN: Final = Failure("bad-token", 403, "the path holds no valid credential")
NO_ENDPOINT: Final = Failure("no-endpoint", 503, "no replica is ready", False, None, "warning")
PARKED: Final = Failure("parked", 503, "no replica became ready in time", False, None, "warning")
SHED: Final = Failure("shed", 503, "too many requests wait already", False, None, "warning")
QUEUED: Final = Failure("queued", 503, "no replica had room in time", False, None, "warning")
RATE: Final = Failure("rate-limit", 429, "too many requests")
FAULT: Final = Failure("fault", 503, "a fault was injected")
CLIENT_GONE: Final = Failure("client-gone", 499, "the client went away")
MAX_FORWARDS: Final = Failure("max-forwards", 200, "the last hop that was asked for")
REDIRECT: Final = Failure("redirect", 308, "see Location")
TOO_LONG: Final = Failure("too-long", 431, "the request head is too long")
NOT_SERVED: Final = Failure("not-served", 501, "the request asks for what is not served here")

_OF_STATUS: Final = {
    405: NOT_SERVED,
    408: SLOW_HEAD,
    414: TOO_LONG,
    431: TOO_LONG,
    501: NOT_SERVED,
    505: NOT_SERVED,
}


def of_status(status: int) -> Failure:
    """The row for a request that was refused with `status` before it was understood."""
    return _OF_STATUS.get(status, BAD_REQUEST)
