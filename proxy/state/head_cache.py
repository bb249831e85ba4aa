"""What a worker remembers of heads, so that it need not read the same ones again and again.

All of it is bounded, and shared by the worker's connections: they are told apart by what they
say, and most of them say the same.
"""

from typing import Final

from proxy.http1.fields import REQUEST_KINDS, RESPONSE_KINDS, FieldLineCache
from proxy.http1.request_template import RequestTemplate, RequestTemplates
from proxy.http1.response import ResponseHead, parse_response
from proxy.http1.response_template import ResponseTemplates
from proxy.http1.rewrite import forwarded_lines

REMEMBERED: Final = 1024
LONGEST: Final = 2048
"""Response heads beyond this many bytes are not kept."""


class HeadCache:
    """See the module. `requests` are lines of requests, `responses` whole heads of answers by
    their bytes. `shapes` and `body_shapes` are those that were learned last, of requests without
    and with a body: new connections begin with them."""

    def __init__(self) -> None:
        self.requests = FieldLineCache(REQUEST_KINDS)
        self.responses: dict[bytes, ResponseHead] = {}
        self.shapes: RequestTemplates = ()
        self.body_shapes: RequestTemplates = ()
        self._answer_lines = FieldLineCache(RESPONSE_KINDS)
        self._room = REMEMBERED
        self._shapes: dict[tuple[bytes, ...], RequestTemplate] = {}
        self._tuples: dict[RequestTemplates, RequestTemplates] = {}
        self._forwarded: dict[tuple[bytes, bytes], bytes] = {}

    def known_response(
        self, raw: bytes, data: bytes, answers: ResponseTemplates
    ) -> ResponseHead | None:
        """The response head `raw`, with which `data` begins, where a shape of the service's
        answers fits."""
        head = answers.match(data, len(raw))
        if head is not None:
            self._remember(raw, head)
        return head

    def read_response(self, raw: bytes, data: bytes, answers: ResponseTemplates) -> ResponseHead:
        """Reads a response head that is not among `responses`. Raises BadMessage."""
        head = self.known_response(raw, data, answers)
        if head is None:
            head = parse_response(raw, self._answer_lines)
            answers.add(raw, head)
            self._remember(raw, head)
        return head

    def _remember(self, raw: bytes, head: ResponseHead) -> None:
        """Most heads recur within a second. Where they do not, no more are kept than that."""
        if len(raw) > LONGEST or not self._room:
            return
        self._room -= 1
        if len(self.responses) >= REMEMBERED:
            self.responses.clear()
        self.responses[raw] = head

    def shared(self, shapes: RequestTemplates) -> RequestTemplates:
        """One and the same object for all connections whose requests have these shapes."""
        if len(self._shapes) >= REMEMBERED or len(self._tuples) >= REMEMBERED:
            self._shapes.clear()
            self._tuples.clear()
        known = self._shapes
        same = tuple([known.setdefault((each.first, *each.pieces), each) for each in shapes])
        return self._tuples.setdefault(same, same)

    def forwarded_lines(self, address: bytes, host: bytes) -> bytes:
        """What tells the origin who asked, for a client and a host."""
        key = (address, host)
        lines = self._forwarded.get(key)
        if lines is None:
            if len(self._forwarded) >= REMEMBERED:
                self._forwarded.clear()
            lines = forwarded_lines(address, b"http", host)
            self._forwarded[key] = lines
        return lines

    def make_room(self) -> None:
        """Keep new heads again; to be called once a second."""
        self._room = REMEMBERED

    def refresh(self) -> None:
        """Look anew at which fields vary; to be called every minute or so."""
        self.requests.refresh()
        self._answer_lines.refresh()
