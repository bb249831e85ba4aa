"""Serves the page and, to those who signed in, the API at the address of the page.

    async with page.serve(control) as address:
        ...

Made by `meshd.daemon.wiring`, which gives it to `meshd.control.facade` for sign-in links too.
`guard` checks each request; the routes of the API check the role as they do elsewhere.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import web

from meshd.api.port import AccessControl, Control
from meshd.api.problems import errors_as_problems
from meshd.api.responses import json_response
from meshd.api.route_table import bind
from meshd.api.server import add_routes, address_of, bind_tcp, start_server
from meshd.api.tcp_address import ServeError, load_tls
from meshd.model.access import (
    CurrentCaller,
    Identity,
    NewSession,
    NewSignInLink,
    NewToken,
    Role,
    SessionKey,
    SignInLink,
    Token,
)
from meshd.model.errors import NotFound, Rejected
from meshd.ui.assets import BUILD_HINT, INDEX, Asset
from meshd.ui.guard import KEY_HEADER, SESSION_PATH, PageGuard, cookie_name
from meshd.ui.settings import PageSettings
from meshd.ui.sign_in import (
    CODE_SECONDS,
    SESSION_NAME,
    SESSION_SECONDS,
    SignInCodes,
    split_secret,
)

YEAR: Final = 365 * 86400
"""Seconds that a browser may keep a file whose name has a hash of its content."""
MAX_BODY: Final = 64 * 1024
"""Bytes of a request at this address: the page sends small JSON documents only."""
_log: Final = structlog.stdlib.get_logger(__name__)


class WebPage:
    """The page of one mesh. Without `settings` it is off; without `files` it was not built."""

    def __init__(
        self,
        settings: PageSettings | None,
        files: Mapping[str, Asset],
        access: AccessControl,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._files = files
        self._access = access
        self._codes = SignInCodes(clock)
        self._url = ""

    @property
    def problem(self) -> str:
        """Why the page is not served; empty if it is, or will be."""
        if self._settings is None:
            return "the web page is off; start the daemon without --no-ui"
        return "" if self._files else BUILD_HINT

    def create_link(self, caller: Identity, new: NewSignInLink) -> SignInLink:
        """Return a link that signs in once. Raises Rejected if the page is not served, or if the
        role is above that of `caller`."""
        if not self._url:
            raise Rejected(self.problem or "the web page is not served yet; try again")
        role = Role(new.role)
        if not Role(caller.role).includes(role):
            raise Rejected(
                f"{caller.who} has the role {caller.role}, so the link cannot have {role}"
            )
        code = self._codes.create(Identity(caller.who, role, caller.project, caller.source))
        return SignInLink(f"{self._url}#code={code}", CODE_SECONDS)

    @asynccontextmanager
    async def serve(self, control: Control) -> AsyncIterator[str]:
        """Serve the page until the end of the block, which gets the address (`HOST:PORT`); it is
        empty if the page is off or was not built. Raises ServeError."""
        if self._settings is None or self.problem:
            if self._settings is not None:
                _log.warning("no web page", reason=self.problem)
            yield ""
            return
        tcp = self._settings.tcp
        context, names = load_tls(tcp)
        try:
            sock = bind_tcp(tcp.address, "the web page")
        except ServeError as error:
            if self._settings.strict:
                raise
            _log.warning("the web page gets a free port", reason=str(error))
            sock = bind_tcp(f"{tcp.address.rpartition(':')[0]}:0", "the web page")
        async with AsyncExitStack() as stack:
            stack.callback(sock.close)
            paths = ["/", *(f"/{name}" for name in self._files)]
            guard = PageGuard(self._access, names, paths)
            app = web.Application(
                middlewares=[errors_as_problems, guard.check], client_max_size=MAX_BODY
            )
            app.on_response_prepare.append(guard.add_headers)
            handlers = _PageHandlers(self._files, self._codes, self._access, guard)
            app.router.add_post(SESSION_PATH, handlers.sign_in)
            app.router.add_delete(SESSION_PATH, handlers.sign_out)
            for path in paths:
                app.router.add_get(path, handlers.file)
            add_routes(app, bind(control))
            await start_server(stack, app, sock, context)
            address = address_of(sock)
            scheme = "http" if context is None else "https"
            self._url = f"{scheme}://{_reachable(address, tcp.names)}/"
            yield address
            self._url = ""


def _reachable(address: str, names: tuple[str, ...]) -> str:
    """Return an address for a browser: a wildcard is replaced by a name of the host."""
    host, _, port = address.rpartition(":")
    if names:
        return f"{names[0]}:{port}"
    return f"localhost:{port}" if host in ("0.0.0.0", "[::]") else address


class _PageHandlers:
    """The requests that only the page sends."""

    def __init__(
        self,
        files: Mapping[str, Asset],
        codes: SignInCodes,
        access: AccessControl,
        guard: PageGuard,
    ) -> None:
        self._files = files
        self._codes = codes
        self._access = access
        self._guard = guard

    async def file(self, request: web.Request) -> web.Response:
        """Answer with a file of the page."""
        name = request.path.removeprefix("/") or INDEX
        asset = self._files[name]
        headers = {
            "Content-Type": asset.media,
            "Cache-Control": "no-cache" if name == INDEX else f"public, max-age={YEAR}, immutable",
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(
                body=asset.compressed, headers={**headers, "Content-Encoding": "gzip"}
            )
        return web.Response(body=asset.content, headers=headers)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Exchange the code of a link, or a token, for a session: a cookie, and the key that the
        page keeps."""
        new = msgspec.json.decode(await request.read(), type=NewSession)
        if new.code:
            caller = self._codes.use(new.code)
            if caller is None:
                self._guard.count_failure(str(request.remote or ""))
                raise web.HTTPUnauthorized(
                    text="this link was used, or is too old; `meshd ui` prints a new one"
                )
            order = NewToken(SESSION_NAME, Role(caller.role), caller.project, SESSION_SECONDS)
            created = self._access.create_token(order, caller.who)
            secret, token = created.secret, created.token
        else:
            found = self._access.authenticate(new.token.strip())
            if found is None:
                self._guard.count_failure(str(request.remote or ""))
                raise web.HTTPUnauthorized(text="this token is not valid")
            secret, token = new.token.strip(), found
        return self._begin(request, secret, token)

    def _begin(self, request: web.Request, secret: str, token: Token) -> web.Response:
        first, rest = split_secret(secret)
        peer = str(request.remote or "")
        caller = CurrentCaller(f"token {token.id} ({token.name})", token.role, token.project, peer)
        response = json_response(SessionKey(rest, caller))
        response.set_cookie(
            cookie_name(request),
            first,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session. A token that the user typed is not revoked."""
        first = request.cookies.get(cookie_name(request), "")
        token = self._access.authenticate(first + request.headers.get(KEY_HEADER, ""))
        if token is not None and token.name == SESSION_NAME:
            try:
                self._access.revoke_token(token.id)
            except NotFound:
                _log.debug("session has ended before", token=token.id)
        response = web.Response(status=204)
        response.del_cookie(cookie_name(request))
        return response
