"""Response templates: match a head against the constant parts of a service's earlier heads. Pure.

Used by `proxy.state` (one `ResponseTemplates` per service) and by `proxy.request.upstream`. The
counterpart of `request_template`: an origin sends the same few heads again and again, with
another length, tag or time in them. A template is a head split at the values that vary. A
head matches only if `parse_response` would return the same result: a value may vary only in a
field without meaning to a proxy, or in Content-Length, which is read. Every other head is parsed.
"""

from typing import Final

from proxy.http1.fields import NOT_VALUE, RESPONSE_KINDS
from proxy.http1.request import END
from proxy.http1.response import ResponseHead
from proxy.http1.template import (
    CRLF,
    MAX_HEAD,
    MAX_LENGTH_DIGITS,
    MAX_VARIABLE_LINES,
    field_name,
    split_at_values,
)

MAX_TEMPLATES: Final = 4
"""Templates per service: typically the heads of a hit, of 304, of an error and of one other."""
MAX_LEARNED: Final = 64
"""Heads to learn from until the next `refresh`. Limits the cost of heads that never match, which
are compared with the templates in addition to being parsed."""
_CONTENT_LENGTH: Final = b"content-length"
_NO_HEAD: Final = b"\0"
"""Bytes that no head begins with."""


class ResponseTemplate:
    """A response head cut at the values that vary. Immutable.

    - `lines`: the lines of the head that it was made from, status line first
    - `head`: the parse result of that head
    - `variable_lines`: indexes of the lines whose values vary
    """

    __slots__ = (
        "_client_pieces",
        "_first",
        "_last",
        "_length_position",
        "_middle",
        "head",
        "lines",
        "variable_lines",
    )

    def __init__(
        self, lines: list[bytes], head: ResponseHead, variable_lines: frozenset[int]
    ) -> None:
        self.lines = lines
        self.head = head
        self.variable_lines = variable_lines
        *pieces, last = split_at_values(lines, variable_lines, b"", b"")
        # The last piece is without the CRLF of the last line, as a head is.
        pieces.append(last.removesuffix(CRLF))
        self._first = pieces[0]
        # The pieces that more values follow, without the CRLF at which the value before them ends.
        self._middle = [piece[len(CRLF) :] for piece in pieces[1:-1]]
        self._last = pieces[-1] if len(pieces) > 1 else None
        names = [field_name(lines[index]).lower() for index in sorted(variable_lines)]
        # Position among the variable values; -1: Content-Length does not vary.
        self._length_position = names.index(_CONTENT_LENGTH) if _CONTENT_LENGTH in names else -1
        # The pieces of the client's head: without dropped lines, with the lines this hop adds.
        kept_lines = head.kept_head.split(CRLF)
        kept = [index for index, line in enumerate(lines) if line in kept_lines]
        variable = frozenset(new for new, old in enumerate(kept) if old in variable_lines)
        *first, last = split_at_values([lines[old] for old in kept], variable, b"", b"")
        self._client_pieces = (*first, last + head.client_head[len(head.kept_head) :])

    def match(self, raw: bytes) -> ResponseHead | None:
        """Return the head `raw`; None if it does not match. See `match_templates` of
        `request_template` for the choice of calls."""
        rest = raw.removeprefix(self._first)
        if len(rest) == len(raw) or len(raw) > MAX_HEAD:
            return None
        client_pieces = self._client_pieces
        out = [client_pieces[0]]
        length = b""
        last = self._last
        if last is not None:
            position = 0
            for piece in self._middle:
                value, _, behind_value = rest.partition(CRLF)
                rest = behind_value.removeprefix(piece)
                if len(rest) == len(behind_value) or value.translate(NOT_VALUE) != value:
                    return None
                if position == self._length_position:
                    length = value
                position += 1
                out.append(value)
                out.append(client_pieces[position])
            value = rest
            if last:
                value = rest.removesuffix(last)
                if len(value) == len(rest):
                    return None
            # No valid value has a CRLF, so this one ends where its line does.
            if value.translate(NOT_VALUE) != value:
                return None
            if position == self._length_position:
                length = value
            out.append(value)
            out.append(client_pieces[position + 1])
        elif rest:
            return None
        known = self.head
        head = ResponseHead(known.status, http10=False)
        if self._length_position >= 0:
            head.body_length = head.content_length = _parse_length(length)
            if head.body_length < 0:
                return None
        else:
            head.content_length = known.content_length
            head.body_length = known.body_length
        head.chunked = known.chunked
        head.is_event_stream = known.is_event_stream
        head.keep_alive_timeout = known.keep_alive_timeout
        head.persistent = known.persistent
        head.fast_path_ok = known.fast_path_ok
        head.client_head = b"".join(out)
        head.added_size = known.added_size
        return head


class ResponseTemplates:
    """The templates of one service's responses, newest first.

    - `last_bytes`, `last`: the head that was read last, as bytes with the empty line, and parsed
    """

    __slots__ = ("_learn_left", "_templates", "last", "last_bytes")

    def __init__(self) -> None:
        self._templates: list[ResponseTemplate] = []
        self._learn_left = MAX_LEARNED
        self.last_bytes = _NO_HEAD
        self.last = ResponseHead(0, http10=False)

    def match(self, raw: bytes) -> ResponseHead | None:
        """Return the head `raw`; None if no template matches."""
        for template in self._templates:
            head = template.match(raw)
            if head is not None:
                return head
        return None

    def remember(self, raw: bytes, head: ResponseHead) -> None:
        """Keep a head, `raw`, as the last one."""
        self.last_bytes = raw + END
        self.last = head

    def add(self, raw: bytes, head: ResponseHead) -> None:
        """Learn from a head that no template matched; `head` is its parse result."""
        if not self._learn_left or head.http10 or head.upgrade or len(raw) > MAX_HEAD:
            return
        self._learn_left -= 1
        lines = raw.split(CRLF)
        for index, template in enumerate(self._templates):
            variable_lines = _generalize(template, lines, head)
            if variable_lines:
                self._templates[index] = ResponseTemplate(lines, head, variable_lines)
                return
        self._templates.insert(0, ResponseTemplate(lines, head, frozenset()))
        if len(self._templates) > MAX_TEMPLATES:
            # Drop a head seen only once before a template with variable values.
            constant = [known for known in self._templates[1:] if not known.variable_lines]
            self._templates.remove(constant[-1] if constant else self._templates[-1])

    def refresh(self) -> None:
        """Allow learning again. Call it about once a second."""
        self._learn_left = MAX_LEARNED


def _generalize(
    template: ResponseTemplate, lines: list[bytes], head: ResponseHead
) -> frozenset[int]:
    """Return the variable lines of a template for both heads; empty if there is none."""
    none = frozenset[int]()
    if len(lines) != len(template.lines):
        return none
    pairs = list(zip(template.lines, lines, strict=True))
    differing = {index for index, (one, other) in enumerate(pairs) if one != other}
    variable_lines = template.variable_lines | differing
    if len(variable_lines) > MAX_VARIABLE_LINES:
        return none
    for index in variable_lines:
        # Index 0 is the status line, which never varies.
        if not (index and _may_vary(*pairs[index], template.head, head)):
            return none
    return variable_lines


def _may_vary(before: bytes, line: bytes, known: ResponseHead, head: ResponseHead) -> bool:
    """Return whether a line, `before` in one head and `line` in the other, may vary."""
    name = field_name(before)
    # Gateways that turn fields into variables (CGI, WSGI) read _ as -: always parse these names.
    if not line.startswith(name + b":") or b"_" in name:
        return False
    # A field named by Connection is dropped, so it has a meaning.
    if before not in known.kept_head.split(CRLF) or line not in head.kept_head.split(CRLF):
        return False
    lowered = name.lower()
    if lowered == _CONTENT_LENGTH:
        # The Content-Length of a 304 is that of another response; this one has no body.
        return head.status != 304 and all(
            each.content_length is not None
            and each.body_length == each.content_length == _parse_length(value)
            for each, value in ((known, before[len(name) + 1 :]), (head, line[len(name) + 1 :]))
        )
    return lowered not in RESPONSE_KINDS


def _parse_length(value: bytes) -> int:
    """Return a Content-Length in canonical form, zero included; -1 for anything else."""
    digits = value.strip(b" \t")
    if (
        not digits.isdigit()
        or len(digits) > MAX_LENGTH_DIGITS
        or (digits[:1] == b"0" and digits != b"0")
    ):
        return -1
    return int(digits)
