"""Request templates: match a head against the constant parts of earlier heads. Pure.

Used by `proxy.request.downstream`, which calls `match_templates` before it parses a head;
`proxy.state.head_cache` shares the templates between connections. A client sends nearly the same
head over and over: the same fields in the same order, another target, and a few fields with a
new value each time (an id, a cookie, a trace). A template is that head, split at those values. A
head that matches is valid, and its meaning is known, after comparing the constant pieces; only
the target and the variable values are checked.

A head matches only if `parse_request` would return the same result. The pieces come from a parsed
head. A value may vary only in a field without meaning to a proxy, and must be a valid field
value. Two fields with a meaning may vary as well: Content-Length and X-Request-Id; their values
are read. Every other head is parsed.
"""

from collections.abc import Sequence
from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import NOT_VALUE, REQUEST_KINDS, VISIBLE_BYTES, translation_table
from proxy.http1.request import END, RequestHead, find_field, is_valid_id
from proxy.http1.template import (
    CRLF,
    MAX_HEAD,
    MAX_VARIABLE_LINES,
    field_name,
    parse_length,
    split_at_values,
)

MAX_TEMPLATES: Final = 3
"""Templates per connection; a client rarely sends more kinds of heads."""
_GET: Final = b"GET"
_METHODS: Final = frozenset((_GET, b"HEAD", b"DELETE", b"POST", b"PUT", b"PATCH"))
"""Without OPTIONS and TRACE: Max-Forwards has a meaning for these."""
_NOT_ORIGIN_FORM: Final = translation_table(VISIBLE_BYTES.replace(b"#", b""))


class RequestTemplate:
    """A request head cut at the values that vary. Immutable; connections share it.

    - `lines`: the field lines of the head that it was made from
    - `variable_lines`: indexes of the lines whose values vary
    - `first`: the piece after the target; without variable values the rest of the head
    - `pieces`: the pieces after it; the variable values are between them
    - `upstream_pieces`: all pieces without dropped lines; empty if no line is dropped
    - `host`, `drop`, `has_id`, `request_id`: see `RequestHead`
    - `fields`: constant values by lower-case name
    - `variable_fields`: lower-case names of the fields that vary
    """

    __slots__ = (
        "_id_position",
        "_last",
        "_length_position",
        "_middle",
        "drop",
        "fields",
        "first",
        "has_id",
        "host",
        "lines",
        "pieces",
        "request_id",
        "upstream_pieces",
        "variable_fields",
        "variable_lines",
    )

    def __init__(self, head: RequestHead, variable_lines: frozenset[int]) -> None:
        self.lines = head.lines
        self.variable_lines = variable_lines
        self.host = head.host
        self.has_id = head.has_id
        self.request_id = head.request_id
        self.drop = head.drop + head.forwarded
        pieces = _split_head(head.lines, variable_lines)
        self.first = pieces[0]
        self.pieces = pieces[1:]
        # The pieces that more values follow, without the CRLF at which the value before them ends.
        self._middle = [piece[len(CRLF) :] for piece in pieces[1:-1]]
        self._last = pieces[-1]
        names = [field_name(head.lines[index]).lower() for index in sorted(variable_lines)]
        self.variable_fields = frozenset(names)
        self.fields: dict[bytes, bytes] = {}
        for line in head.lines:
            name = field_name(line).lower()
            value = find_field(head.lines, name)
            if value is not None:
                self.fields[name] = value
        # Positions among the variable values; -1: the field does not vary.
        self._length_position = names.index(b"content-length") if b"content-length" in names else -1
        self._id_position = names.index(b"x-request-id") if b"x-request-id" in names else -1
        self.upstream_pieces: tuple[bytes, ...] = ()
        if self.drop:
            dropped = set(self.drop)
            kept = [index for index, line in enumerate(head.lines) if line not in dropped]
            variable = frozenset(new for new, old in enumerate(kept) if old in variable_lines)
            self.upstream_pieces = _split_head([head.lines[old] for old in kept], variable)

    def match(
        self, raw: bytes, method: bytes, target: bytes, behind_first: bytes
    ) -> RequestHead | None:
        """Return the head `raw`, which consists of `method`, `target`, `first` and `behind_first`;
        None if it does not match."""
        if target[:1] != b"/" or target.translate(_NOT_ORIGIN_FORM) != target:
            return None
        if method == _GET:
            # This object's hash is known, which later lookups by method need.
            method = _GET
        elif method not in _METHODS:
            return None
        values: list[bytes] = []
        rest = behind_first
        if self.pieces:
            for piece in self._middle:
                value, _, behind_value = rest.partition(CRLF)
                rest = behind_value.removeprefix(piece)
                if len(rest) == len(behind_value) or value.translate(NOT_VALUE) != value:
                    return None
                values.append(value)
            value = rest
            if self._last:
                value = rest.removesuffix(self._last)
                if len(value) == len(rest):
                    return None
            # No valid value has a CRLF, so this one ends where its line does.
            if value.translate(NOT_VALUE) != value:
                return None
            values.append(value)
        elif rest:
            return None
        if len(raw) > MAX_HEAD:
            return None
        head = RequestHead(raw, method, target, None)
        if self._length_position >= 0:
            head.length = parse_length(values[self._length_position])
            if not head.length:
                return None
        head.template = self
        head.host = self.host
        if self.has_id:
            head.has_id = True
            head.request_id = self.request_id
            if self._id_position >= 0:
                head.request_id = values[self._id_position].strip(b" \t")
                if not is_valid_id(head.request_id):
                    return None
        if self.drop:
            head.drop = self.drop
            head.unchanged = False
            head.upstream_head = self._build_upstream_head(method, target, values)
        else:
            head.upstream_head = head.raw
        return head

    def _build_upstream_head(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        out = [method, b" ", target, b" ", self.upstream_pieces[0]]
        for value, piece in zip(values, self.upstream_pieces[1:], strict=True):
            out.append(value)
            out.append(piece)
        return b"".join(out)


def _split_head(lines: Sequence[bytes], variable_lines: frozenset[int]) -> tuple[bytes, ...]:
    """Return the constant pieces of a head after its target, without the empty line."""
    *pieces, last = split_at_values(lines, variable_lines)
    return (*pieces, last.removesuffix(END))


RequestTemplates = tuple[RequestTemplate, ...]
"""The templates of one connection. Immutable, so that connections can share them."""


def match_templates(templates: RequestTemplates, raw: bytes) -> RequestHead | None:
    """Return the head `raw`, which is without the empty line; None if no template matches it.

    Searches and comparisons are by methods of `bytes` that return the parts: with `find` and
    `startswith`, which parse their arguments in a general form, the path of a request took a fifth
    more instructions compiled, and a tenth more in plain Python.
    """
    words = raw.split(b" ", 2)
    if len(words) != 3:
        return None
    method, target, rest = words
    for template in templates:
        behind_first = rest.removeprefix(template.first)
        if len(behind_first) != len(rest):
            head = template.match(raw, method, target, behind_first)
            if head is not None:
                return head
    return None


def add_template(known: RequestTemplates, head: RequestHead) -> RequestTemplates:
    """Return the templates of a connection after a head that did not match the `known` ones.

    If the head differs from a known template only in values that may vary, that template is
    replaced by a more general one. Otherwise the head becomes a new template.
    """
    if not fast_path_ok(head):
        return known
    length_line = frozenset[int]()
    if head.length:
        # Bodies differ in size, so Content-Length varies from the start.
        length_line = frozenset(
            [
                index
                for index, line in enumerate(head.lines)
                if field_name(line).lower() == b"content-length"
            ]
        )
    for index, template in enumerate(known):
        variable_lines = _generalize(template, head, length_line)
        if variable_lines is not None:
            general = RequestTemplate(head, variable_lines)
            return (*known[:index], general, *known[index + 1 :])
    return _limit_size((RequestTemplate(head, length_line), *known))


def _limit_size(templates: RequestTemplates) -> RequestTemplates:
    """Keep the first templates: at most MAX_TEMPLATES, and at most MAX_HEAD bytes in total."""
    free, count = MAX_HEAD, 0
    for template in templates[:MAX_TEMPLATES]:
        free -= len(template.first) + sum(map(len, template.pieces))
        count += free >= 0
    return templates[:count]


def _generalize(
    known: RequestTemplate, head: RequestHead, length_line: frozenset[int]
) -> frozenset[int] | None:
    """Return the variable lines of a template for both `known` and `head`; None if impossible."""
    if len(known.lines) != len(head.lines):
        return None
    pairs = enumerate(zip(known.lines, head.lines, strict=True))
    differing = {index for index, (one, other) in pairs if one != other}
    variable_lines = known.variable_lines | length_line | differing
    if len(variable_lines) > MAX_VARIABLE_LINES:
        return None
    if not all(_may_vary(known, head, index) for index in variable_lines):
        return None
    return variable_lines


def _may_vary(known: RequestTemplate, head: RequestHead, index: int) -> bool:
    """Return whether the line at `index` may have a variable value in a template for both."""
    line, before = head.lines[index], known.lines[index]
    name = field_name(before)
    # Gateways that turn fields into variables (CGI, WSGI) read _ as -: always parse these names.
    if not line.startswith(name + b":") or b"_" in name:
        return False
    lowered = name.lower()
    if lowered == b"content-length":
        return bool(head.length and parse_length(before[len(name) + 1 :]))
    if lowered == b"x-request-id":
        return line not in head.drop and before not in known.drop
    return lowered not in REQUEST_KINDS


def fast_path_ok(head: RequestHead) -> bool:
    """Return whether a head may become a template.

    It is a complete HTTP/1.1 request that keeps the connection open, needs no special treatment
    by this hop, and has no body or one with a canonical Content-Length.
    """
    named_fields = set(head.options) - {b"keep-alive"}
    if head.length and (
        head.length < 0 or b"content-length" in [field_name(d).lower() for d in head.drop]
    ):
        return False
    # A second X-Request-Id is dropped. Its line may equal that of the first, which is kept.
    if any(head.lines.count(line) != head.drop.count(line) for line in head.drop):
        return False
    return (
        not (head.http10 or head.expect or head.upgrade or named_fields)
        and head.persistent
        and head.request_line_unchanged
        and head.host is not None
        and head.max_forwards < 0
        and len(head.raw) < MAX_HEAD
        and len(head.lines) <= limits.REQUEST_FIELDS
    )
