"""Checks the requests at the address of the page. The middleware of `page`.

The Host and Origin headers and the rate are checked as for the API over TCP. The caller is known by
two parts of one token: the cookie and a header that the page sends.
"""

import time
from collections.abc import Callable, Collection
from typing import Final

from aiohttp import web

from meshd.api.access import check_source, take_requests
from meshd.api.port import AccessControl
from meshd.api.rate_limit import FAILURE_COST, PeerLimiter
from meshd.api.requests import CALLER
from meshd.api.routes import BoundHandler
from meshd.model.access import Identity

KEY_HEADER: Final = "X-Meshd-Key"
"""Header with the part of the session's token that the page keeps."""
SESSION_PATH: Final = "/session"
_SECURITY_HEADERS: Final = {
    # Nothing inline, nothing from elsewhere, and no other page may embed this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class PageGuard:
    """Passes on the requests that are allowed. `names`: host names of this server; `files`: paths
    that need no session."""

    def __init__(
        self,
        access: AccessControl,
        names: Collection[str],
        files: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._names = frozenset(names)
        self._open = frozenset((*files, SESSION_PATH))
        self._clock = clock
        self._limiter = PeerLimiter()

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that limit what a browser does with a response. A signal of aiohttp, so
        that errors and streams have them too."""
        response.headers.update(_SECURITY_HEADERS)
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"

    @web.middleware
    async def check(self, request: web.Request, handler: BoundHandler) -> web.StreamResponse:
        """Pass on a request for a file or of a known caller; otherwise answer with the reason."""
        peer = str(request.remote or "")
        take_requests(self._limiter, peer, self._clock())
        check_source(request, self._names)
        if request.path not in self._open:
            caller = self._find_caller(request, peer)
            if caller is None:
                raise web.HTTPUnauthorized(
                    text="sign in first: `meshd ui` prints a link, on the machine of the daemon"
                )
            request[CALLER] = caller
        return await handler(request)

    def count_failure(self, peer: str) -> None:
        """Count a sign-in that failed. Raises HTTPTooManyRequests."""
        take_requests(self._limiter, peer, self._clock(), FAILURE_COST)

    def _find_caller(self, request: web.Request, peer: str) -> Identity | None:
        first, rest = request.cookies.get(cookie_name(request)), request.headers.get(KEY_HEADER)
        if not first or not rest:
            return None
        token = self._access.authenticate(first + rest)
        if token is None:
            self.count_failure(peer)
            return None
        return Identity(f"token {token.id} ({token.name})", token.role, token.project, peer)


def cookie_name(request: web.Request) -> str:
    """Return the name of the session's cookie. It has the port, because the pages of two meshes on
    one host share their cookies."""
    local = request.transport.get_extra_info("sockname") if request.transport else None
    return f"meshd_session_{local[1] if local else 0}"
