"""A call of gRPC: the part of an exchange that knows its deadline, its status and its errors.

`Exchange` creates a `GrpcCall` for a request that is one, if the service speaks HTTP/2, and asks it
about the response: the status is in the head or in the trailers, and decides about success. The
meaning of the fields is in `proxy.http2.grpc`.
"""

from typing import TYPE_CHECKING, Final

from proxy.http2 import grpc
from proxy.request import failure, headers, retry
from proxy.request.failure import Failure

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

RETRIED: Final = failure.STATUS._replace(cause="refused")
"""The failure of an attempt whose status is one of those to retry: the endpoint did not process the
call."""


class GrpcCall:
    """The call of one exchange.

    - `code`: its status code; negative while it is not known.
    """

    __slots__ = ("_exchange", "code")

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self.code = -1

    def last_deadline(self, other: float) -> float:
        """Return the deadline of the call or `other`, whichever is earlier; 0.0 means none."""
        exchange = self._exchange
        seconds = grpc.parse_timeout(exchange.head.field(b"grpc-timeout"))
        if not seconds:
            return other
        own = exchange.started + seconds
        return min(own, other) if other else own

    def is_to_retry(self, code: int, now: float) -> bool:
        """Return whether the service lists a status code as one to retry. The endpoint is blamed
        for it then."""
        exchange = self._exchange
        if code not in exchange.service.config.retries.grpc or exchange.endpoint is None:
            return False
        self._blame(code, now)
        return True

    def settle(self, code: int | None, now: float, *, blamed: bool = False) -> int:
        """Count the outcome, once; `blamed`: the endpoint was blamed already. Return the HTTP
        status with the same meaning, 0 for success. A response without a status is none in
        order."""
        if self.code >= 0:
            return 0
        exchange = self._exchange
        endpoint, service = exchange.endpoint, exchange.service
        self.code = code = grpc.UNKNOWN if code is None else code
        status = grpc.http_status(code)
        if endpoint is not None and not blamed:
            if status >= 500:
                self._blame(code, now)
            else:
                latency = exchange.first_byte_at - exchange.sent_at
                if endpoint.record_success(latency, now, exchange.load):
                    service.refresh(now)
        service.counters.count_call_of_grpc(exchange.head.target, code)
        return status if code else 0

    def break_off(self, why: Failure) -> int:
        """Note that the call ends after its response has begun. Return its HTTP status."""
        exchange = self._exchange
        self.code = grpc.code_of_failure(why.reason)
        exchange.service.counters.count_call_of_grpc(exchange.head.target, self.code)
        return grpc.http_status(self.code)

    def last_lines(self, why: Failure) -> bytes:
        """Return the trailers of a call that was broken off."""
        return grpc.status_lines(self.code, why.text)

    def _blame(self, code: int, now: float) -> None:
        exchange = self._exchange
        if exchange.endpoint is not None:
            text = f"grpc-status {grpc.CODES[code]}"
            retry.blame(exchange.plane, exchange.service, exchange.endpoint, text, now)


def answer_failure(exchange: "Exchange", why: Failure, extra: bytes, now: float) -> None:
    """Answer a call with a status of gRPC instead of an error page, and end the exchange. `extra`
    holds more field lines."""
    code = grpc.code_of_failure(why.reason)
    client = exchange.client
    if exchange.call is not None:
        exchange.service.counters.count_call_of_grpc(exchange.head.target, code)
    response = grpc.build_error(code, why.text, extra + exchange.plane.date_line())
    client.respond(headers.own_response(exchange, response), b"")
    client.exchange_over(now, complete=exchange.request_complete)
