"""All ways in which an exchange can fail, in one table.

A row says what the client receives, whether the endpoint is to blame, and how `proxy.policy.retry`
classifies the failure. The documentation of the error reasons is checked against this table.
"""

from typing import Final, NamedTuple

from proxy.filters import reasons
from proxy.policy.retry import Cause
from proxy.transport.upstream_tls import TlsFailed


class Failure(NamedTuple):
    """One way to fail.

    - `reason`: its name in metrics and logs.
    - `status`: the HTTP status of the error response.
    - `text`: what the client reads in it.
    - `blame`: whether it counts as a failure of the endpoint.
    - `cause`: its class in `proxy.policy.retry`; None if it is never retried.
    - `detail`: of one failure, what was seen of it; empty in the table.
    """

    reason: str
    status: int
    text: str
    blame: bool = False
    cause: Cause | None = None
    detail: str = ""


CONNECT: Final = Failure("connect", 502, "no connection to the origin", True, "connect")
CONNECT_TIMEOUT: Final = Failure(
    "connect-timeout", 504, "the origin did not accept a connection in time", True, "connect"
)
TLS: Final = Failure("tls", 502, "no TLS connection to the origin", True, "connect")
CLOSED: Final = Failure(
    "closed", 502, "the origin closed the connection without an answer", True, "closed"
)
REFUSED: Final = Failure(
    "refused", 503, "the origin takes no more requests on its connection", False, "refused"
)
GIVEN_UP: Final = Failure("given-up", 502, "the replica hangs and was given up", False, "given-up")
FIRST_BYTE: Final = Failure(
    "first-byte-timeout", 504, "the origin did not answer in time", True, "timeout"
)
PROTOCOL: Final = Failure("protocol", 502, "the origin's answer is not valid", True, "protocol")
STATUS: Final = Failure("status", 502, "the origin answered with an error", True, "status")
BROKEN: Final = Failure("broken", 502, "the origin broke off its answer", True, "broken")
IDLE: Final = Failure("idle-timeout", 504, "the body made no progress in time", False, "broken")
REQUEST_TIMEOUT: Final = Failure("request-timeout", 504, "the request took too long")
SLOW_HEAD: Final = Failure("slow-head", 408, "the request head did not arrive in time")
SLOW_BODY: Final = Failure("slow-body", 408, "the request body did not arrive in time")
BAD_REQUEST: Final = Failure("bad-request", 400, "the request is not valid")
AMBIGUOUS_PATH: Final = Failure(
    "ambiguous-path", 400, "servers read this path differently, and a guarded route depends on it"
)
TOO_LARGE: Final = Failure("too-large", 413, "the request body is too large")
NO_ROUTE: Final = Failure("no-route", 404, "no route matches this host and path")
NO_SERVICE: Final = Failure("no-service", 404, "no service has that name")
NO_CERTIFICATE: Final = Failure("client-certificate", 403, "a client certificate is required")
DENIED: Final = Failure("denied", 403, "this service may not be called from there")
BAD_TOKEN: Final = Failure("bad-token", 403, "the path holds no valid credential")
NO_ENDPOINT: Final = Failure("no-endpoint", 503, "no replica is ready")
ASLEEP: Final = Failure(
    "asleep", 503, "no replica runs, and the requests of a background route start none"
)
PARKED: Final = Failure("parked", 503, "no replica became ready in time")
SHED: Final = Failure("shed", 503, "too many requests wait already")
QUEUED: Final = Failure("queued", 503, "no replica had room in time")
RATE: Final = Failure("rate-limit", 429, "too many requests")
FAULT: Final = Failure("fault", 503, "a fault was injected")
NO_DESCRIPTOR: Final = Failure(
    "no-descriptor", 503, "the proxy has no file descriptor for a connection to the origin"
)
CLIENT_GONE: Final = Failure("client-gone", 499, "the client closed the connection")
MAX_FORWARDS: Final = Failure("max-forwards", 200, "this is the last hop that Max-Forwards allows")
CHALLENGE: Final = Failure("acme-challenge", 200, "the answer to a certificate authority")
"""With the answer as its text, which is the whole body."""
NO_PASSWORD: Final = Failure(
    "basic-auth", 401, "a user name and a password are required, and these are not known"
)
PASSWORDS_BUSY: Final = Failure("basic-auth-busy", 503, "too many passwords are being checked")
FORWARD_AUTH: Final = Failure(
    reasons.FORWARD_AUTH, 403, "the service that decides about access refused it"
)
"""With the answer of that service, status included."""
NOT_DECIDED: Final = Failure(
    "forward-auth-failed", 503, "the service that decides about access did not answer"
)
MAINTENANCE: Final = Failure(reasons.MAINTENANCE, 503, "the service is under maintenance")
PREFLIGHT: Final = Failure(reasons.PREFLIGHT, 200, "the answer about requests of another origin")
"""Sent with status 204 and no body."""
WAKING: Final = Failure(reasons.WAKING, 503, "the service is starting")
"""For browsers, with a page that loads again."""
REDIRECT: Final = Failure("redirect", 308, "see Location")
TOO_LONG: Final = Failure("too-long", 431, "the request head is too long")
NOT_SERVED: Final = Failure("not-served", 501, "the request asks for something not supported here")
LOOP: Final = Failure("loop", 508, "the request has passed this proxy too often")

_BY_STATUS: Final = {
    405: NOT_SERVED,
    408: SLOW_HEAD,
    414: TOO_LONG,
    431: TOO_LONG,
    501: NOT_SERVED,
    505: NOT_SERVED,
    508: LOOP,
}


def from_connect_error(error: OSError) -> Failure:
    """Return the row for a connection to an endpoint that could not be opened."""
    return TLS if isinstance(error, TlsFailed) else CONNECT


def from_status(status: int) -> Failure:
    """Return the row for a request that was rejected with `status` before it was parsed."""
    return _BY_STATUS.get(status, BAD_REQUEST)
