"""The request that asks another service whether a request may pass, and its answer. Pure.

Used by `proxy.request_filters.forward_auth`. Field names are those of Traefik's ForwardAuth, which
authentication services understand: X-Forwarded-Method, -Uri, -Host, -Proto and -For.
"""

from typing import Final

from proxy.http1.fields import split_list
from proxy.http1.request import END, RequestHead
from proxy.http1.rewrite import CRLF
from proxy.wire.filters import ForwardAuth

_NOT_SENT: Final = frozenset(
    (
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"keep-alive",
        b"max-forwards",
        b"range",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-forwarded-method",
        b"x-forwarded-uri",
    )
)
"""Fields of a request that concern its body, its connection or its condition, and those that are
written here."""
_NOT_RETURNED: Final = frozenset(
    (b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer")
)
"""Fields of an answer that concern its connection or framing."""


def normalize(name: bytes) -> bytes:
    """Return a field name as CGI programs see it, for which `-` and `_` are the same."""
    return name.lower().replace(b"_", b"-")


def build_subrequest(config: ForwardAuth, head: RequestHead) -> bytes:
    """Return the head of the subrequest about a request, without the empty line."""
    dropped = {*head.drop, *head.forwarded}
    kept = [
        line
        for line in head.lines
        if line not in dropped and normalize(line.partition(b":")[0]) not in _NOT_SENT
    ]
    own = [
        b"GET %b HTTP/1.1" % config.path.encode(),
        b"Host: " + config.service.rpartition("/")[2].encode(),
        b"X-Forwarded-Method: " + head.method,
        b"X-Forwarded-Uri: " + head.target,
    ]
    return CRLF.join([*own, *kept])


class Answer:
    """The answer of the service that decides.

    - `status`: its status.
    - `lines`: its field lines.
    - `body`: its body, without framing.
    """

    __slots__ = ("body", "lines", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        start, *self.lines = head.removesuffix(END).split(CRLF)
        self.status = int(start[9:12])
        self.body = body

    @property
    def passes(self) -> bool:
        """Whether the request may pass."""
        return 200 <= self.status < 300

    def find_all(self, name: bytes) -> bytes | None:
        """Return a field's value by its lower-case name, several joined; None without one."""
        values = [
            line.partition(b":")[2].strip(b" \t")
            for line in self.lines
            if line.partition(b":")[0].lower() == name
        ]
        return b", ".join(values) if values else None

    def response(self) -> bytes:
        """Return the answer as a whole response for the client."""
        named = {
            each
            for line in self.lines
            if line[:11].lower() == b"connection:"
            for each in split_list(line[11:])
        }
        kept = [
            line
            for line in self.lines
            if (name := line.partition(b":")[0].lower()) not in _NOT_RETURNED and name not in named
        ]
        start = b"HTTP/1.1 %d Decided" % self.status
        length = b"Content-Length: %d" % len(self.body)
        return CRLF.join([start, *kept, length]) + END + self.body
