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
from proxy.http1.template import MAX_HEAD, MAX_VARIABLE_LINES, field_name, split_at_values

MAX_TEMPLATES: Final = 4
"""How many kinds of heads a service's answers are known by."""
MAX_LEARNED: Final = 64
"""How many heads are learned from until `refresh`: those that have no shape must not cost more
than to parse them."""
_LENGTH: Final = b"content-length"
_LENGTH_DIGITS: Final = 9
_CRLF: Final = b"\r\n"


class ResponseTemplate:
    """See the module. Never changed. `lines` is a head that has it, its status line first, and
    `head` what that one was read as; `variable_lines` are the places of the lines whose values
    differ."""

    __slots__ = ("_first", "_length_gap", "_onward", "_pieces", "head", "lines", "variable_lines")

    def __init__(self, lines: list[bytes], head: ResponseHead, gaps: frozenset[int]) -> None:
        self.lines = lines
        self.head = head
        self.variable_lines = gaps
        pieces = split_at_values(lines, gaps, b"", b"")
        self._first = pieces[0]
        self._pieces = pieces[1:]
        names = [field_name(lines[place]).lower() for place in sorted(gaps)]
        self._length_gap = names.index(_LENGTH) if _LENGTH in names else -1
        # The same without the lines that go no further, and with what this hop adds.
        stay = head.kept_head.split(_CRLF)
        kept = [place for place, line in enumerate(lines) if line in stay]
        left = frozenset(new for new, place in enumerate(kept) if place in gaps)
        *most, last = split_at_values([lines[place] for place in kept], left, b"", b"")
        self._onward = (*most, last + head.client_head[len(head.kept_head) :])

    def match(self, data: bytes, end: int) -> ResponseHead | None:
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
        if at != end + 2 or at > MAX_HEAD:
            return None
        like = self.head
        head = ResponseHead(like.status, http10=False)
        if self._length_gap >= 0:
            head.body_length = head.content_length = _length_of(length)
            if head.body_length < 0:
                return None
        else:
            head.content_length = like.content_length
            head.body_length = like.body_length
        head.chunked = like.chunked
        head.is_event_stream = like.is_event_stream
        head.keep_alive_timeout = like.keep_alive_timeout
        head.persistent = like.persistent
        head.fast_path_ok = like.fast_path_ok
        head.client_head = b"".join(out)
        head.added_size = like.added_size
        return head


class ResponseTemplates:
    """What one service's answers are known by."""

    __slots__ = ("_lessons", "_shapes")

    def __init__(self) -> None:
        self._shapes: list[ResponseTemplate] = []
        self._lessons = MAX_LEARNED

    def match(self, data: bytes, end: int) -> ResponseHead | None:
        """The head that `data` begins with and whose last line ends at `end`, where one of the
        shapes fits."""
        for shape in self._shapes:
            head = shape.match(data, end)
            if head is not None:
                return head
        return None

    def add(self, raw: bytes, head: ResponseHead) -> None:
        """Take in a head that no shape fitted, and what it was read as."""
        if not self._lessons or head.http10 or head.upgrade or len(raw) > MAX_HEAD:
            return
        self._lessons -= 1
        lines = raw.split(_CRLF)
        for place, shape in enumerate(self._shapes):
            gaps = _differing(shape, lines, head)
            if gaps:
                self._shapes[place] = ResponseTemplate(lines, head, gaps)
                return
        self._shapes.insert(0, ResponseTemplate(lines, head, frozenset()))
        if len(self._shapes) > MAX_TEMPLATES:
            # A head that was seen once goes before a shape does.
            once = [shape for shape in self._shapes[1:] if not shape.variable_lines]
            self._shapes.remove(once[-1] if once else self._shapes[-1])

    def refresh(self) -> None:
        """Learn again; to be called every second or so."""
        self._lessons = MAX_LEARNED


def _differing(shape: ResponseTemplate, lines: list[bytes], head: ResponseHead) -> frozenset[int]:
    """The gaps of a shape that both have; none where there is no such shape."""
    none = frozenset[int]()
    if len(lines) != len(shape.lines):
        return none
    both = list(zip(shape.lines, lines, strict=True))
    gaps = shape.variable_lines | {place for place, (one, other) in enumerate(both) if one != other}
    if len(gaps) > MAX_VARIABLE_LINES:
        return none
    for place in gaps:
        if not (place and _may_differ(*both[place], shape.head, head)):
            return none
    return gaps


def _may_differ(before: bytes, line: bytes, known: ResponseHead, head: ResponseHead) -> bool:
    """Whether there may be a gap where one head has the one line and another head the other."""
    name = field_name(before)
    # Gateways that make variables of fields take _ for -, so such a name is looked at.
    if not line.startswith(name + b":") or b"_" in name:
        return False
    # What Connection names goes no further, and so means something.
    if before not in known.kept_head.split(_CRLF) or line not in head.kept_head.split(_CRLF):
        return False
    kind = name.lower()
    if kind == _LENGTH:
        # What 304 tells is the length of another answer, even where it is none.
        return head.status != 304 and all(
            each.content_length is not None
            and each.body_length == each.content_length == _length_of(value)
            for each, value in ((known, before[len(name) + 1 :]), (head, line[len(name) + 1 :]))
        )
    return kind not in RESPONSE_KINDS


def _length_of(value: bytes) -> int:
    """What a Content-Length says that is written as usual; else -1."""
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > _LENGTH_DIGITS or (digits[:1] == b"0" != digits):
        return -1
    return int(digits)
