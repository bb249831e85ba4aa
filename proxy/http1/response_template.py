"""The shapes that a service's answers have in common.

What `proxy.http1.request_template` does for requests: an origin sends the same few heads again and
again, with another length, tag or time in them. A `ResponseTemplate` is such a head cut at the
values that differ; one that fits is known by comparing its pieces and the values. It is then what
`parse_response` would have made of it: a value may differ only in a field that means nothing to a
proxy, or in Content-Length, which is read. Whatever does not fit is parsed as ever.
"""

from typing import Final

from proxy.http1.fields import NOT_VALUE, RESPONSE_KINDS
from proxy.http1.response import ResponseHead
from proxy.http1.template import LONGEST, MOST_GAPS, cut, name_of

SHAPES: Final = 4
"""How many kinds of heads a service's answers are known by."""
LESSONS: Final = 64
"""How many heads are learned from until `refresh`: those that have no shape must not cost more
than to parse them."""
_LENGTH: Final = b"content-length"
_LENGTH_DIGITS: Final = 9
_CRLF: Final = b"\r\n"


class ResponseTemplate:
    """See the module. Never changed. `lines` is a head that has it, its status line first, and
    `head` what that one was read as; `gaps` are the places of the lines whose values differ."""

    __slots__ = ("_first", "_length_gap", "_onward", "_pieces", "gaps", "head", "lines")

    def __init__(self, lines: list[bytes], head: ResponseHead, gaps: frozenset[int]) -> None:
        self.lines = lines
        self.head = head
        self.gaps = gaps
        pieces = cut(lines, gaps, b"", b"")
        self._first = pieces[0]
        self._pieces = pieces[1:]
        names = [name_of(lines[place]).lower() for place in sorted(gaps)]
        self._length_gap = names.index(_LENGTH) if _LENGTH in names else -1
        # The same without the lines that go no further, and with what this hop adds.
        stay = head.kept.split(_CRLF)
        kept = [place for place, line in enumerate(lines) if line in stay]
        left = frozenset(new for new, place in enumerate(kept) if place in gaps)
        *most, last = cut([lines[place] for place in kept], left, b"", b"")
        self._onward = (*most, last + head.ready[len(head.kept) :])

    def read(self, data: bytes, end: int) -> ResponseHead | None:
        """The head that `data` begins with, whose last line ends at `end`; None where it does
        not fit."""
        if not data.startswith(self._first):
            return None
        at = len(self._first)
        onward = self._onward
        out = [onward[0]]
        length = b""
        for turn, piece in enumerate(self._pieces):
            stop = data.find(_CRLF, at)
            if stop < 0 or not data.startswith(piece, stop):
                return None
            value = data[at:stop]
            if value.translate(NOT_VALUE) != value:
                return None
            if turn == self._length_gap:
                length = value
            out.append(value)
            out.append(onward[turn + 1])
            at = stop + len(piece)
        if at != end + 2 or at > LONGEST:
            return None
        like = self.head
        head = ResponseHead(like.status, http10=False)
        if self._length_gap >= 0:
            head.follows = head.length = _length_of(length)
            if head.follows < 0:
                return None
        else:
            head.length = like.length
            head.follows = like.follows
        head.chunked = like.chunked
        head.events = like.events
        head.idle = like.idle
        head.persistent = like.persistent
        head.plain = like.plain
        head.ready = b"".join(out)
        head.tail = like.tail
        return head


class Answers:
    """What one service's answers are known by."""

    __slots__ = ("_lessons", "_shapes")

    def __init__(self) -> None:
        self._shapes: list[ResponseTemplate] = []
        self._lessons = LESSONS

    def read(self, data: bytes, end: int) -> ResponseHead | None:
        """The head that `data` begins with and whose last line ends at `end`, where one of the
        shapes fits."""
        for shape in self._shapes:
            head = shape.read(data, end)
            if head is not None:
                return head
        return None

    def learn(self, raw: bytes, head: ResponseHead) -> None:
        """Take in a head that no shape fitted, and what it was read as."""
        if not self._lessons or head.http10 or head.upgrade or len(raw) > LONGEST:
            return
        self._lessons -= 1
        lines = raw.split(_CRLF)
        for place, shape in enumerate(self._shapes):
            gaps = _differing(shape, lines, head)
            if gaps:
                self._shapes[place] = ResponseTemplate(lines, head, gaps)
                return
        self._shapes.insert(0, ResponseTemplate(lines, head, frozenset()))
        if len(self._shapes) > SHAPES:
            # A head that was seen once goes before a shape does.
            once = [shape for shape in self._shapes[1:] if not shape.gaps]
            self._shapes.remove(once[-1] if once else self._shapes[-1])

    def refresh(self) -> None:
        """Learn again; to be called every second or so."""
        self._lessons = LESSONS


def _differing(shape: ResponseTemplate, lines: list[bytes], head: ResponseHead) -> frozenset[int]:
    """The gaps of a shape that both have; none where there is no such shape."""
    none = frozenset[int]()
    if len(lines) != len(shape.lines):
        return none
    both = list(zip(shape.lines, lines, strict=True))
    gaps = shape.gaps | {place for place, (one, other) in enumerate(both) if one != other}
    if len(gaps) > MOST_GAPS:
        return none
    for place in gaps:
        if not (place and _may_differ(*both[place], shape.head, head)):
            return none
    return gaps


def _may_differ(before: bytes, line: bytes, known: ResponseHead, head: ResponseHead) -> bool:
    """Whether there may be a gap where one head has the one line and another head the other."""
    name = name_of(before)
    # Gateways that make variables of fields take _ for -, so such a name is looked at.
    if not line.startswith(name + b":") or b"_" in name:
        return False
    # What Connection names goes no further, and so means something.
    if before not in known.kept.split(_CRLF) or line not in head.kept.split(_CRLF):
        return False
    kind = name.lower()
    if kind == _LENGTH:
        # What 304 tells is the length of another answer, even where it is none.
        return head.status != 304 and all(
            each.length is not None and each.follows == each.length == _length_of(value)
            for each, value in ((known, before[len(name) + 1 :]), (head, line[len(name) + 1 :]))
        )
    return kind not in RESPONSE_KINDS


def _length_of(value: bytes) -> int:
    """What a Content-Length says that is written as usual; else -1."""
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > _LENGTH_DIGITS or (digits[:1] == b"0" != digits):
        return -1
    return int(digits)
