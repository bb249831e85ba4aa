"""Asks a service of the mesh whether a request may pass.

`begin` starts it for each request of a route with `forward_auth`, and holds the request until the
service has answered or the deadline has passed. The question is an exchange like any other, with
the same balancing, retries and counts. Without an answer the request does not pass.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.filters.subrequest import Answer, build_subrequest
from proxy.http1.chunked import ChunkedReader
from proxy.http1.request import RequestHead, parse_request
from proxy.http2.response import is_chunked
from proxy.request.exchange import Exchange
from proxy.request.failure import Failure
from proxy.request.sinks import NEVER, ClientSink
from proxy.wire.filters import ForwardAuth

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.service_state import ServiceState

LARGEST_BODY: Final = 64 * 1024
"""Bytes of an answer. It is held until it is complete."""


class DecisionClient(ClientSink):
    """The client of the question. It collects the answer and calls `decided` with it once, or with
    None if there is no complete answer in time."""

    __slots__ = ("_body", "_decided", "_head", "_limit", "_original", "_original_head", "_plane")

    def __init__(
        self,
        plane: "DataPlane",
        original: Exchange,
        limit: float,
        decided: "Callable[[Answer | None], None]",
    ) -> None:
        client = original.client
        super().__init__(client.listener, client.peer, client.address, client.tls)
        self.source = client.source
        self.fast_path_ok = False
        self.deadline = limit
        self._plane = plane
        self._original = client
        self._original_head = original.head
        self._limit = limit
        self._decided: Callable[[Answer | None], None] | None = decided
        self._head = b""
        self._body = b""

    def run(self, exchange: Exchange) -> None:
        """Send the question."""
        self.exchange = exchange
        self._plane.stream_begun(self)
        exchange.admit()

    def expire_at(self, deadline: float) -> None:
        self.deadline = min(deadline, self._limit)

    def forwarded_lines(self, head: RequestHead) -> bytes:
        del head
        return self._original.forwarded_lines(self._original_head)

    def respond(self, head: bytes, body: bytes) -> None:
        self._head, self._body = head, body

    def send_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 1"):
            self._head = head

    def write(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > LARGEST_BODY:
            self.abort()

    def send_error(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        del head, why, status, extra, complete
        self._over(None)

    def exchange_over(self, now: float, *, complete: bool) -> None:
        del now, complete
        body = self._body
        if is_chunked(self._head):
            body = ChunkedReader(raw=False).feed(body)
        self._over(Answer(self._head, body) if self._head else None)

    def break_off(self, *, abruptly: bool) -> None:
        del abruptly
        self._over(None)

    def close(self) -> None:
        self._over(None)

    def abort(self) -> None:
        exchange = self.exchange
        self._over(None)
        if exchange is not None:
            exchange.client_gone()

    def expire(self, now: float) -> None:
        self.deadline = NEVER
        if now >= self._limit:
            self.abort()
        elif self.exchange is not None:
            self.exchange.expire(now)

    def drain(self) -> None:
        """Do nothing: the question ends with its exchange."""

    def _over(self, answer: Answer | None) -> None:
        self.exchange = None
        decided, self._decided = self._decided, None
        if decided is not None:
            self._plane.stream_over(self)
            decided(answer)


def ask(
    exchange: Exchange,
    config: ForwardAuth,
    service: "ServiceState",
    decided: "Callable[[Answer | None], None]",
) -> None:
    """Ask `service` about the request of an exchange, and call `decided` with its answer; with None
    without one."""
    plane = exchange.plane
    now = plane.clock()
    head = parse_request(build_subrequest(config, exchange.head), plane.head_cache.requests)
    client = DecisionClient(plane, exchange, now + config.timeout, decided)
    question = Exchange(plane, client, head, now)
    question.service = service
    client.run(question)
