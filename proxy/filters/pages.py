"""The body of responses that the proxy makes itself: error pages, maintenance, waiting page. Pure.

Used by `proxy.filters.compiled`. A page replaces the short text of an error; status and other
fields stay. A client that prefers JSON keeps the proxy's JSON unless the page is JSON too.
"""

from typing import Final

from proxy.http1.accept import accepts_html, prefers_json
from proxy.http1.request import END, RequestHead
from proxy.http1.rewrite import CRLF
from proxy.wire.filters import ErrorPage

_HTML: Final = b"text/html; charset=utf-8"
_JSON: Final = b"application/json"
_CONTENT: Final = (b"content-type:", b"content-length:")
NO_STORE: Final = b"Cache-Control: no-store"

BUILT_IN_WAITING_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Starting</title>
<style>
:root { color-scheme: light dark; }
body { font: 1.1rem/1.5 system-ui, sans-serif; display: grid; place-items: center;
  min-height: 90vh; margin: 0; text-align: center; }
</style>
</head>
<body><main><h1>Starting</h1>
<p role="status">This service is starting. The page loads again by itself.</p></main></body>
</html>
"""


def wants_waiting_page(head: RequestHead) -> bool:
    """Return whether a request is one of a browser for a page."""
    return head.method == b"GET" and not head.upgrade and accepts_html(head.field(b"accept") or b"")


class ErrorPages:
    """The error pages of a route, by status."""

    def __init__(self, pages: tuple[ErrorPage, ...]) -> None:
        self._pages = {page.status: page.content.encode() for page in pages}

    def find(self, status: int) -> bytes | None:
        """Return the page for a status; None without one."""
        return self._pages.get(str(status)) or self._pages.get(f"{status // 100}xx")


def is_wanted(page: bytes, head: RequestHead) -> bool:
    """Return whether the client of a request takes this page rather than the proxy's own JSON."""
    return page.startswith(b"{") or not prefers_json(head.field(b"accept") or b"")


def replace_body(response: bytes, page: bytes, head: RequestHead, *lines: bytes) -> bytes:
    """Return a response with another body and more field lines."""
    start, _, _ = response.partition(END)
    media_type = _JSON if page.startswith(b"{") else _HTML
    kept = [line for line in start.split(CRLF) if not line.lower().startswith(_CONTENT)]
    kept += [b"Content-Type: " + media_type, b"Content-Length: %d" % len(page), *lines]
    return CRLF.join(kept) + END + (b"" if head.method == b"HEAD" else page)


def remove_body(response: bytes, *lines: bytes) -> bytes:
    """Return a response as 204 without a body, and with more field lines."""
    _, *fields = response.partition(END)[0].split(CRLF)
    kept = [line for line in fields if not line.lower().startswith(_CONTENT)]
    return CRLF.join([b"HTTP/1.1 204 No Content", *kept, *lines]) + END


def add_lines(response: bytes, lines: list[bytes]) -> bytes:
    """Return a response with more field lines."""
    start, end, body = response.partition(END)
    return CRLF.join([start, *lines]) + end + body
