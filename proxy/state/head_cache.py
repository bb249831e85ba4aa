"""Caches of request and response heads, so that a worker parses equal heads only once.

`DataPlane` owns one `HeadCache`, and all connections of the worker share it: most of them send the
same fields. Every cache in it is bounded.
"""

from typing import Final

from proxy.http1.fields import REQUEST_KINDS, RESPONSE_KINDS, FieldLineCache
from proxy.http1.request import LOOP_LINE, VIA
from proxy.http1.request_template import RequestTemplate, RequestTemplates
from proxy.http1.response import ResponseHead, parse_response
from proxy.http1.response_template import ResponseTemplates
from proxy.http1.rewrite import forwarded_lines
from proxy.http2.response import ResponseFields

MAX_ENTRIES: Final = 1024
"""Entries of each cache, and response heads that are added to it within a second."""
MAX_HEAD_BYTES: Final = 2048
"""Longer response heads are not cached. Measured heads of real servers are below 1 KiB."""


class HeadCache:
    """The head caches of one worker.

    - `requests`: parsed field lines of requests.
    - `responses`: parsed response heads by their bytes, without the empty line.
    - `templates`, `body_templates`: the request templates that were learned last, of requests
      without and with a body. New connections start with them.
    - `http2_templates`, `http2_body_templates`: the same for HTTP/2, whose heads look different.
    - `response_fields`: translates response heads for clients with HTTP/2.
    - `hop_lines`: the field lines that name this proxy as a hop, for every forwarded request. With
      Via they end with `VIA`.
    """

    def __init__(self) -> None:
        self.requests = FieldLineCache(REQUEST_KINDS)
        self.responses: dict[bytes, ResponseHead] = {}
        self.templates: RequestTemplates = ()
        self.body_templates: RequestTemplates = ()
        self.http2_templates: RequestTemplates = ()
        self.http2_body_templates: RequestTemplates = ()
        self.response_fields = ResponseFields()
        self._response_lines = FieldLineCache(RESPONSE_KINDS)
        self._quota = MAX_ENTRIES
        self._templates: dict[tuple[bytes, ...], RequestTemplate] = {}
        self._tuples: dict[RequestTemplates, RequestTemplates] = {}
        self.hop_lines = LOOP_LINE
        self._forwarded: dict[tuple[bytes, bytes, bytes], bytes] = {}

    def find_response(self, raw: bytes, templates: ResponseTemplates) -> ResponseHead | None:
        """Return the response head `raw` if it is cached or matches one of the service's
        templates, else None. Keep it as the service's last one."""
        head = self.responses.get(raw)
        if head is None:
            head = templates.match(raw)
            if head is None:
                return None
            self._add(raw, head)
        if len(raw) <= MAX_HEAD_BYTES:
            templates.remember(raw, head)
        return head

    def read_response(self, raw: bytes, templates: ResponseTemplates) -> ResponseHead:
        """Read a response head. Raises BadMessage."""
        head = self.find_response(raw, templates)
        if head is None:
            head = parse_response(raw, self._response_lines)
            templates.add(raw, head)
            self._add(raw, head)
        return head

    def _add(self, raw: bytes, head: ResponseHead) -> None:
        """Cache a head. The quota a second bounds the cost where heads do not recur: heads that
        do recur mostly do so within a second."""
        if len(raw) > MAX_HEAD_BYTES or not self._quota:
            return
        self._quota -= 1
        if len(self.responses) >= MAX_ENTRIES:
            self.responses.clear()
        self.responses[raw] = head

    def keep_templates(self, templates: RequestTemplates) -> RequestTemplates:
        """Make these the templates of new connections. Return them as objects shared by all
        connections with equal templates."""
        self.templates = self._intern(templates)
        return self.templates

    def keep_body_templates(self, templates: RequestTemplates) -> RequestTemplates:
        """Do the same as `keep_templates`, for requests with a body."""
        self.body_templates = self._intern(templates)
        return self.body_templates

    def _intern(self, templates: RequestTemplates) -> RequestTemplates:
        if len(self._templates) >= MAX_ENTRIES or len(self._tuples) >= MAX_ENTRIES:
            self._templates.clear()
            self._tuples.clear()
        known = self._templates
        same = tuple([known.setdefault((each.first, *each.pieces), each) for each in templates])
        return self._tuples.setdefault(same, same)

    def forwarded_lines(self, address: bytes, scheme: bytes, host: bytes) -> bytes:
        """Return the forwarding field lines for a client address, a scheme and a request host, and
        `hop_lines`."""
        key = (address, scheme, host)
        lines = self._forwarded.get(key)
        if lines is None:
            if len(self._forwarded) >= MAX_ENTRIES:
                self._forwarded.clear()
            lines = forwarded_lines(address, scheme, host) + self.hop_lines
            self._forwarded[key] = lines
        return lines

    def send_via(self, enabled: bool) -> bool:
        """Set whether `hop_lines` has Via. Return whether it was different."""
        lines = LOOP_LINE + VIA if enabled else LOOP_LINE
        changed = lines != self.hop_lines
        if changed:
            self.hop_lines = lines
            self._forwarded.clear()
        return changed

    def reset_quota(self) -> None:
        """Allow new response heads again; the caller calls this once a second."""
        self._quota = MAX_ENTRIES

    def refresh(self) -> None:
        """Find out again which fields vary; the caller calls this about once a minute."""
        self.requests.refresh()
        self._response_lines.refresh()
