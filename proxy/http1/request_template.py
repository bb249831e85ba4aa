"""The shape that a connection's requests have in common.

A client sends the same head over and over: the same fields in the same order, with another target
and now and then a field whose value differs each time (an id, a cookie, a trace). A `Shape` is
that head cut at those values. A head that fits it is known to be good, and known in all that
matters, by comparing its pieces; only the target and the differing values are looked at.

What fits is what `parse_request` would have taken with the same result: the pieces were parsed
once, and a differing value may stand only in a field that means nothing to a proxy, and may hold
only what a field value may hold. Two fields that mean something may differ all the same: the
length of a body, and a request's id; their values are read. Whatever does not fit is parsed as
ever.
"""

from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import NOT_VALUE, REQUEST_KINDS, VISIBLE_BYTES, translation_table
from proxy.http1.request import RequestHead, find_field, is_valid_id
from proxy.http1.template import (
    CRLF,
    MAX_HEAD,
    MAX_VARIABLE_LINES,
    field_name,
    parse_length,
    split_at_values,
)

MAX_TEMPLATES: Final = 3
"""How many kinds of requests a connection is known by, those with a body apart."""
_METHODS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"POST", b"PUT", b"PATCH"))
"""Not OPTIONS and TRACE, to which Max-Forwards means something."""
_NOT_ORIGIN_FORM: Final = translation_table(VISIBLE_BYTES.replace(b"#", b""))


class RequestTemplate:
    """See the module. Shared by connections and never changed.

    `lines` are the fields of a head that has it, `variable_lines` the places of those that differ.
    `host`
    is what the head says; `fields` are the values that do not differ, by their lower-case names,
    and `variable_fields` the names of those that do; `drop`, `has_id` and `request_id` are those of
    `RequestHead`.
    """

    __slots__ = (
        "_id_gap",
        "_length_gap",
        "drop",
        "fields",
        "first",
        "first_size",
        "has_id",
        "host",
        "lines",
        "pieces",
        "request_id",
        "upstream_pieces",
        "variable_fields",
        "variable_lines",
    )

    def __init__(self, head: RequestHead, gaps: frozenset[int]) -> None:
        self.lines = head.lines
        self.variable_lines = gaps
        self.host = head.host
        self.has_id = head.has_id
        self.request_id = head.request_id
        self.drop = head.drop + head.forwarded
        pieces = split_at_values(head.lines, gaps)
        self.first = pieces[0]
        self.first_size = len(pieces[0])
        self.pieces = pieces[1:]
        names = [field_name(head.lines[place]).lower() for place in sorted(gaps)]
        self.variable_fields = frozenset(names)
        self.fields: dict[bytes, bytes] = {}
        for line in head.lines:
            name = field_name(line).lower()
            value = find_field(head.lines, name)
            if value is not None:
                self.fields[name] = value
        self._length_gap = names.index(b"content-length") if b"content-length" in names else -1
        self._id_gap = names.index(b"x-request-id") if b"x-request-id" in names else -1
        # Where lines go no further, the head is put together anew without them.
        self.upstream_pieces: tuple[bytes, ...] = ()
        if self.drop:
            gone = set(self.drop)
            kept = [place for place, line in enumerate(head.lines) if line not in gone]
            left = frozenset(new for new, place in enumerate(kept) if place in gaps)
            self.upstream_pieces = split_at_values([head.lines[place] for place in kept], left)

    def match(self, data: bytes, one: int, two: int) -> RequestHead | None:
        """See `match`; `one` and `two` are the places of the first two spaces, and what is
        behind them is `first`."""
        method, target = data[:one], data[one + 1 : two]
        if method not in _METHODS or target[:1] != b"/":
            return None
        at = two + 1 + self.first_size
        values: list[bytes] = []
        for piece in self.pieces:
            end = data.find(CRLF, at)
            if end < 0 or not data.startswith(piece, end):
                return None
            value = data[at:end]
            if value.translate(NOT_VALUE) != value:
                return None
            values.append(value)
            at = end + len(piece)
        if at > MAX_HEAD or target.translate(_NOT_ORIGIN_FORM) != target:
            return None
        head = RequestHead(data[: at - 4], method, target, None)
        if self._length_gap >= 0:
            head.length = parse_length(values[self._length_gap])
            if not head.length:
                return None
        elif at != len(data):
            return None
        head.template = self
        head.host = self.host
        if self.has_id:
            head.has_id = True
            head.request_id = self.request_id
            if self._id_gap >= 0:
                head.request_id = values[self._id_gap].strip(b" \t")
                if not is_valid_id(head.request_id):
                    return None
        if self.drop:
            head.drop = self.drop
            head.unchanged = False
            head.upstream_head = self._onward(method, target, values)
        else:
            head.upstream_head = head.raw
        return head

    def _onward(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        out = [method, b" ", target, b" ", self.upstream_pieces[0]]
        for value, piece in zip(values, self.upstream_pieces[1:], strict=True):
            out.append(value)
            out.append(piece)
        return b"".join(out)[:-4]


RequestTemplates = tuple[RequestTemplate, ...]
"""Of what one connection asks; shared, as they are."""


def match_templates(shapes: RequestTemplates, data: bytes) -> RequestHead | None:
    """The head that `data` is, or begins with where a body follows (from the place
    `len(head.raw) + 4` on, as much of it as came); None where none of the shapes fits."""
    one = data.find(b" ")
    two = data.find(b" ", one + 1)
    if two < 0:
        return None
    for shape in shapes:
        if data.startswith(shape.first, two + 1):
            head = shape.match(data, one, two)
            if head is not None:
                return head
    return None


def add_template(known: RequestTemplates, head: RequestHead) -> RequestTemplates:
    """The shapes of a connection's heads, after one more that did not fit the `known` ones."""
    if not fast_path_ok(head):
        return known
    measured = frozenset[int]()
    if head.length:
        # Bodies differ: their length is a gap from the beginning.
        measured = frozenset(
            [place for place, line in enumerate(head.lines) if _is(line, b"content-length")]
        )
    for turn, shape in enumerate(known):
        gaps = _gaps(shape, head, measured)
        if gaps is not None:
            return (*known[:turn], RequestTemplate(head, gaps), *known[turn + 1 :])
    return _bounded((RequestTemplate(head, measured), *known))


def _bounded(shapes: RequestTemplates) -> RequestTemplates:
    """The first of them: a connection's are no longer together than a single one may be."""
    room, most = MAX_HEAD, 0
    for shape in shapes[:MAX_TEMPLATES]:
        room -= len(shape.first) + sum(map(len, shape.pieces))
        most += room >= 0
    return shapes[:most]


def _gaps(
    known: RequestTemplate, head: RequestHead, measured: frozenset[int]
) -> frozenset[int] | None:
    """Where a shape has gaps that a head has too; None where there is no such shape."""
    if len(known.lines) != len(head.lines):
        return None
    both = enumerate(zip(known.lines, head.lines, strict=True))
    gaps = known.variable_lines | measured | {place for place, (one, other) in both if one != other}
    if len(gaps) > MAX_VARIABLE_LINES or not all(_may_differ(known, head, place) for place in gaps):
        return None
    return gaps


def _may_differ(known: RequestTemplate, head: RequestHead, place: int) -> bool:
    """Whether a gap may be where a line of a head and of those before it differ."""
    line, before = head.lines[place], known.lines[place]
    name = field_name(before)
    # Gateways that make variables of fields take _ for -, so such a name is looked at.
    if not line.startswith(name + b":") or b"_" in name:
        return False
    kind = name.lower()
    if kind == b"content-length":
        return bool(head.length and parse_length(before[len(name) + 1 :]))
    if kind == b"x-request-id":
        return line not in head.drop and before not in known.drop
    return kind not in REQUEST_KINDS


def _is(line: bytes, name: bytes) -> bool:
    return field_name(line).lower() == name


def fast_path_ok(head: RequestHead) -> bool:
    """Whether a head is such that others like it may go without being parsed: a complete
    HTTP/1.1 request that leaves the connection open, asks for nothing special of this hop, and
    has no body or one of a length that it tells."""
    named = set(head.options) - {b"keep-alive"}
    if head.length and (
        head.length < 0 or b"content-length" in [field_name(d).lower() for d in head.drop]
    ):
        return False
    # The second of two ids goes no further, and may be written just as the one that does.
    if any(head.lines.count(line) != head.drop.count(line) for line in head.drop):
        return False
    return (
        not (head.http10 or head.expect or head.upgrade or named)
        and head.persistent
        and head.request_line_unchanged
        and head.host is not None
        and head.max_forwards < 0
        and len(head.raw) < MAX_HEAD
        and len(head.lines) <= limits.REQUEST_FIELDS
    )
