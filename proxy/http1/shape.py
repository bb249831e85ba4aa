"""The shape that a connection's requests have in common.

A client sends the same head over and over: the same fields in the same order, with another target
and now and then a field whose value differs each time (an id, a cookie, a trace). A `Shape` is
that head cut at those values. A head that fits it is known to be good, and known in all that
matters, by comparing its pieces; only the target and the differing values are looked at.

What fits is what `parse_request` would have taken with the same result: the pieces were parsed
once, and a differing value may stand only in a field that means nothing to a proxy, and may hold
only what a field value may hold. Whatever does not fit is parsed as ever.
"""

from collections.abc import Sequence
from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import NOT_VALUE, REQUEST_KINDS, VISIBLE_BYTES, all_but
from proxy.http1.head import RequestHead

LONGEST: Final = 8 * 1024
"""Heads beyond this many bytes have no shape; the bounds of their parts are then kept too."""
MOST_GAPS: Final = 6
_CRLF: Final = b"\r\n"
_METHODS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PUT", b"PATCH"))
_NOT_ORIGIN_FORM: Final = all_but(VISIBLE_BYTES.replace(b"#", b""))
_VERSION: Final = b"HTTP/1.1\r\n"


class Shape:
    """See the module. Shared by connections and never changed.

    `lines` are the fields of a head that has it, `gaps` the places of those that differ. `host`
    is what the head says; `drop` and `has_id` are those of `RequestHead`.
    """

    __slots__ = ("drop", "first", "gaps", "has_id", "host", "lines", "onward", "pieces", "size")

    def __init__(self, head: RequestHead, gaps: frozenset[int]) -> None:
        self.lines = head.lines
        self.gaps = gaps
        self.host = head.host
        self.has_id = head.has_id
        self.drop = head.drop + head.forwarded
        pieces = cut(head.lines, gaps)
        self.first = pieces[0]
        self.size = len(pieces[0])
        self.pieces = pieces[1:]
        # Where lines go no further, the head is put together anew without them.
        self.onward: tuple[bytes, ...] = ()
        if self.drop:
            gone = set(self.drop)
            kept = [place for place, line in enumerate(head.lines) if line not in gone]
            left = frozenset(new for new, place in enumerate(kept) if place in gaps)
            self.onward = cut([head.lines[place] for place in kept], left)

    def read(self, data: bytes) -> RequestHead | None:
        """The head that `data` is, all of it; None where it does not fit."""
        parts = data.split(b" ", 2)
        if len(parts) != 3:
            return None
        method, target, rest = parts
        if not rest.startswith(self.first) or method not in _METHODS or target[:1] != b"/":
            return None
        at = self.size
        values: list[bytes] = []
        for piece in self.pieces:
            end = rest.find(_CRLF, at)
            if end < 0 or not rest.startswith(piece, end):
                return None
            value = rest[at:end]
            if value.translate(NOT_VALUE) != value:
                return None
            values.append(value)
            at = end + len(piece)
        if at != len(rest) or len(data) > LONGEST or target.translate(_NOT_ORIGIN_FORM) != target:
            return None
        head = RequestHead(data[:-4], method, target, None)
        head.host = self.host
        if self.has_id:
            head.has_id = True
        if self.drop:
            head.drop = self.drop
            head.untouched = False
            head.onward = self._onward(method, target, values)
        else:
            head.onward = head.raw
        return head

    def _onward(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        out = [method, b" ", target, b" ", self.onward[0]]
        for value, piece in zip(values, self.onward[1:], strict=True):
            out.append(value)
            out.append(piece)
        return b"".join(out)[:-4]


def cut(lines: Sequence[bytes], gaps: frozenset[int]) -> tuple[bytes, ...]:
    """All of a head behind its target, cut where the values of the lines in `gaps` stand."""
    pieces: list[bytes] = []
    piece = _VERSION
    for place, line in enumerate(lines):
        if place in gaps:
            pieces.append(piece + line[: line.find(b":") + 1])
            piece = _CRLF
        else:
            piece += line + _CRLF
    return (*pieces, piece + _CRLF)


def learn(known: Shape | None, head: RequestHead) -> Shape | None:
    """The shape of a connection's heads, after one more that did not fit the `known` one; None
    where they have none."""
    if not usual(head):
        return known
    if known is None or len(known.lines) != len(head.lines):
        return Shape(head, frozenset())
    differing = {
        place
        for place, (one, other) in enumerate(zip(known.lines, head.lines, strict=True))
        if one != other
    }
    gaps = frozenset(differing | known.gaps)
    if len(gaps) > MOST_GAPS:
        return Shape(head, frozenset())
    for place in gaps:
        name = known.lines[place].partition(b":")[0]
        same = head.lines[place].startswith(name + b":")
        # Gateways that make variables of fields take _ for -, so such a name is looked at.
        if not same or b"_" in name or name.lower() in REQUEST_KINDS:
            return Shape(head, frozenset())
    return Shape(head, gaps)


def usual(head: RequestHead) -> bool:
    """Whether a head is such that others like it may go without being parsed: a complete
    HTTP/1.1 request without a body that leaves the connection open and asks for nothing special
    of this hop."""
    named = set(head.options) - {b"keep-alive"}
    return (
        not (head.http10 or head.length or head.expect or head.upgrade or named)
        and head.persistent
        and head.exact
        and head.host is not None
        and head.max_forwards < 0
        and len(head.raw) < LONGEST
        and len(head.lines) <= limits.REQUEST_FIELDS
    )
