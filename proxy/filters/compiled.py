"""All filters of one route, compiled from the snapshot.

`proxy.state.routing_table` makes one for each route with filters. `proxy.request.resolve` asks
`find_refusal` before a request is routed, `proxy.request.dispatch` limits its wait, and
`proxy.request.headers` passes it the responses.
"""

from ipaddress import ip_address, ip_network

from proxy.filters import pages
from proxy.filters.compression import CompressionRules
from proxy.filters.cors import OWN_FIELDS, CorsPolicy, is_preflight
from proxy.filters.credentials import PasswordTable
from proxy.filters.reasons import FORWARD_AUTH, MAINTENANCE, PREFLIGHT, WAKING
from proxy.http1.request import RequestHead
from proxy.http1.rewrite import CRLF
from proxy.wire.filters import Filters


class CompiledFilters:
    """The filters of a route.

    - `config`: the filters as the snapshot has them.
    - `edits_requests`, `edits_responses`: whether fields of requests to the service, or of its
      responses, change.
    - `request_start`: whether requests to the service name the time of their arrival.
    - `passwords`: the users that may send requests; None for all.
    - `compression`: how responses are compressed, or None.
    """

    def __init__(self, config: Filters) -> None:
        self.config = config
        self._cors = CorsPolicy(config.cors) if config.cors else None
        self._pages = pages.ErrorPages(config.error_pages)
        self._maintenance = config.maintenance
        maintenance = config.maintenance
        self._allowed = (
            [ip_network(each, strict=False) for each in maintenance.allow] if (maintenance) else []
        )
        waiting = config.waiting_page
        self._waits_for = waiting.after if waiting else -1.0
        self._waiting_page = (
            (waiting.page or pages.BUILT_IN_WAITING_PAGE).encode() if waiting else b""
        )
        self._refresh = b"Refresh: %d" % waiting.refresh if waiting else b""
        self.request_start = config.request_start
        self.compression = CompressionRules(config.compression) if config.compression else None
        self.passwords = PasswordTable(config.basic_auth) if config.basic_auth else None
        self.edits_requests = bool(config.request_start or config.basic_auth or config.forward_auth)
        self.edits_responses = self._cors is not None

    def find_refusal(self, head: RequestHead, source: str) -> tuple[str, bytes] | None:
        """Return the reason and more field lines of the answer that a request of the client at
        `source` gets at once; None if it is passed on."""
        if self._cors is not None and is_preflight(head):
            return PREFLIGHT, b""
        maintenance = self._maintenance
        if maintenance is not None and not self._may_pass(source):
            return MAINTENANCE, b"Retry-After: %d\r\n" % maintenance.retry_after
        return None

    def _may_pass(self, source: str) -> bool:
        """Return whether a client reaches the service in spite of maintenance."""
        if not self._allowed:
            return False
        try:
            address = ip_address(source)
        except ValueError:
            return False
        return any(address in network for network in self._allowed)

    def limit_wait(self, head: RequestHead, since: float, deadline: float) -> float:
        """Return the deadline of a request that has waited for a first replica since `since`."""
        if self._waits_for < 0.0 or not pages.wants_waiting_page(head):
            return deadline
        return min(deadline, since + self._waits_for)

    def gets_waiting_page(self, head: RequestHead) -> bool:
        """Return whether a request gets the waiting page once it has waited long enough."""
        return self._waits_for >= 0.0 and pages.wants_waiting_page(head)

    def edit_own_response(self, head: RequestHead, reason: str, response: bytes) -> bytes:
        """Return a response that the proxy made for `reason`, after the filters."""
        if reason == PREFLIGHT and self._cors is not None:
            return pages.remove_body(response, *self._cors.preflight_lines(head))
        lines = self._cors.response_lines(head) if self._cors is not None else []
        if reason == FORWARD_AUTH:
            return pages.add_lines(response, lines) if lines else response
        page = self._find_page(reason, int(response[9:12]))
        if page and (reason == WAKING or pages.is_wanted(page, head)):
            if reason in (WAKING, MAINTENANCE):
                lines.append(pages.NO_STORE)
            if reason == WAKING:
                lines.append(self._refresh)
            return pages.replace_body(response, page, head, *lines)
        return pages.add_lines(response, lines) if lines else response

    def _find_page(self, reason: str, status: int) -> bytes | None:
        if reason == WAKING:
            return self._waiting_page
        if reason == MAINTENANCE and self._maintenance is not None and self._maintenance.page:
            return self._maintenance.page.encode()
        return self._pages.find(status)

    def edit_response(self, head: RequestHead, lines: bytes) -> bytes:
        """Return the start line and field lines of a service's response, each with CRLF, after the
        filters."""
        if self._cors is None:
            return lines
        start, *fields = lines.removesuffix(CRLF).split(CRLF)
        kept = [line for line in fields if line.partition(b":")[0].lower() not in OWN_FIELDS]
        return CRLF.join([start, *kept, *self._cors.response_lines(head), b""])
