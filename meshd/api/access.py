"""Who sends a request, and whether it may. Two steps for every route of `server`.

`TcpGuard` is the middleware of the TCP address: it checks the Host and Origin headers and the rate,
and finds the caller by token or client certificate. `protect` wraps each handler: it checks the
role and the project, and writes changes to the audit log. At the Unix socket the caller is its
owner, with the role admin.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from math import ceil
from typing import Any, Final

from aiohttp import web

from meshd.api.dto import ScaleOverride
from meshd.api.origin import is_known_host, is_same_origin
from meshd.api.port import AccessControl, Control
from meshd.api.problems import describe_error
from meshd.api.rate_limit import FAILURE_COST, PeerLimiter
from meshd.api.requests import CALLER, identity
from meshd.api.routes import SHUTDOWN, TAR, ApiRoute, BoundHandler
from meshd.model.access import Identity, NewToken, Role
from meshd.model.errors import NotFound

_SCHEME: Final = "bearer"
_SHOWN_BODIES: Final = (ScaleOverride, NewToken)
"""Types of bodies that the audit log shows: they are small and hold no secret."""
CLIENT_GONE: Final = 499
"""Status of a request whose client disconnected, as nginx logs it."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="meshd"'}


class TcpGuard:
    """Checks the requests at the TCP address. `names`: host names of this server."""

    def __init__(
        self,
        access: AccessControl,
        names: Collection[str],
        limiter: PeerLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._names = frozenset(names)
        self._limiter = PeerLimiter() if limiter is None else limiter
        self._clock = clock

    @web.middleware
    async def check(self, request: web.Request, handler: BoundHandler) -> web.StreamResponse:
        """Pass on a request of a known caller; otherwise answer with the reason."""
        peer = str(request.remote or "")
        take_requests(self._limiter, peer, self._clock())
        check_source(request, self._names)
        caller = self._find_caller(request, peer)
        if caller is None:
            take_requests(self._limiter, peer, self._clock(), FAILURE_COST)
            raise web.HTTPUnauthorized(
                text="a valid token is needed: `Authorization: Bearer TOKEN`; `meshd token create` "
                "makes one on the host of the daemon",
                headers=_CHALLENGE,
            )
        request[CALLER] = caller
        return await handler(request)

    def _find_caller(self, request: web.Request, peer: str) -> Identity | None:
        """Return the caller by its token, or by its certificate if it has sent no token."""
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, secret = header.partition(" ")
            token = self._access.authenticate(secret.strip()) if scheme.lower() == _SCHEME else None
            if token is None:
                return None
            return Identity(f"token {token.id} ({token.name})", token.role, token.project, peer)
        certificate = request.transport and request.transport.get_extra_info("peercert")
        return identity_of_certificate(certificate, peer) if certificate else None


def take_requests(limiter: PeerLimiter, peer: str, now: float, cost: float = 1.0) -> None:
    """Count a request of a client. Raises HTTPTooManyRequests if it has sent too many."""
    wait = limiter.take(peer, now, cost)
    if wait:
        raise web.HTTPTooManyRequests(
            text="too many requests; try again later", headers={"Retry-After": str(ceil(wait))}
        )


def check_source(request: web.Request, names: Collection[str]) -> None:
    """Check that a request names this server, whose host names are `names`, and is not of a page
    of another site. Raises HTTPMisdirectedRequest, HTTPForbidden."""
    local = request.transport and request.transport.get_extra_info("sockname")
    if not local or not is_known_host(request.host, local[0], names):
        raise web.HTTPMisdirectedRequest(
            text=f"this server is not {request.host[:200]!r}; use its address, or a name of "
            "its certificate"
        )
    if not is_same_origin(
        request.headers.get("Origin"),
        request.headers.get("Sec-Fetch-Site"),
        request.scheme,
        request.host,
    ):
        raise web.HTTPForbidden(text="requests of pages of other sites are refused")


def identity_of_certificate(certificate: Mapping[str, Any], peer: str) -> Identity | None:
    """Return the caller that a verified client certificate names: its common name (CN), with the
    role of its organization (O), `meshd:ROLE`, for the project of its organizational unit (OU).
    None if it names no role."""
    found: dict[str, str] = {}
    for parts in certificate.get("subject", ()):
        for name, value in parts:
            if name in found:
                return None  # two readings
            found[name] = value
    prefix, _, role = found.get("organizationName", "").partition(":")
    if prefix != "meshd" or role not in tuple(Role):
        return None
    name = found.get("commonName", "?")
    return Identity(
        f"certificate {name}", Role(role), found.get("organizationalUnitName", ""), peer
    )


def protect(route: ApiRoute, handler: BoundHandler, control: Control) -> BoundHandler:
    """Return the handler of a route with the checks of role and project before it. Requests that
    change something, or try to, are written to the audit log."""

    async def run(request: web.Request) -> web.StreamResponse:
        caller = identity(request)
        if route.method == "GET" and route.media != TAR:
            _check(route, caller, request, control)
            return await handler(request)
        status, detail = CLIENT_GONE, ""
        try:
            _check(route, caller, request, control)
            if route.path != SHUTDOWN:
                control.require_lead()
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status, detail, _ = describe_error(error)
            raise
        else:
            status = response.status
            if route.body in _SHOWN_BODIES:
                detail = await request.text()
            return response
        finally:
            path = str(request.rel_url)
            control.access_control().record(caller, request.method, path, status, detail)

    return run


def _check(route: ApiRoute, caller: Identity, request: web.Request, control: Control) -> None:
    """Raises HTTPForbidden if the caller may not use the route."""
    if not caller.role.includes(route.role):
        raise web.HTTPForbidden(
            text=f"this needs the role {route.role}; {caller.who} has the role {caller.role}"
        )
    if caller.project and not route.filtered:
        project = _project_of(request, control)
        if project != caller.project:
            raise web.HTTPForbidden(text=f"{caller.who} is for the project {caller.project} only")


def _project_of(request: web.Request, control: Control) -> str:
    """Return the project that a request is about; empty if it is not about one, or if what it
    names does not exist."""
    names = request.match_info
    if "project" in names:
        return names["project"]
    if "replica" in names:
        for service in control.status().services:
            if any(replica.name == names["replica"] for replica in service.replicas):
                return service.project
    if "job" in names:
        try:
            return control.job_control().job(names["job"]).project
        except NotFound:
            return ""
    return ""
