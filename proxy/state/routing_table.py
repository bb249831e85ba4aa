"""A snapshot compiled for use: which service a request is for, and which route rules apply.

`DataPlane.install` builds the `Routing` of a generation outside the request path and replaces the
previous one by a single assignment. Live state (`ServiceState`, `EndpointState`, rate limiters) is
carried over by name, so that a new snapshot loses none of it.
"""

from typing import TYPE_CHECKING, Final

from proxy.ipc.address import is_own_address
from proxy.ipc.shared_memory import WorkerRow
from proxy.policy.client_address import find_client
from proxy.policy.path_policy import PathGuards
from proxy.policy.ratelimit import RateLimiter
from proxy.policy.route import MAX_CACHED_HOSTS, RouteTable, climbs, normalize_host
from proxy.state.service_state import ServiceState
from proxy.state.trusted_networks import TrustedNetworks
from proxy.wire.filters import Filters
from proxy.wire.snapshot import (
    Generation,
    HeaderEdit,
    Listener,
    Route,
    Snapshot,
    Target,
)

if TYPE_CHECKING:
    from proxy.filters.compiled import CompiledFilters

MAX_CLIENTS: Final = 4096
"""Values of forwarding fields whose client is cached: those of the last seconds."""
MAX_UNKNOWN_CALLERS: Final = 4096
"""Source addresses without a known replica that are cached."""
CHALLENGE_PATH: Final = b"/.well-known/acme-challenge/"
"""Path at which a certificate authority asks for the answer to a challenge (RFC 8555, 8.3)."""

Limiters = dict[str, tuple[object, RateLimiter]]
"""Rate limiters by route id, each with the rate limit that it was made for."""


class CompiledEdits:
    """The header edits of a route as bytes: `put` replaces fields, `add` adds fields, `remove`
    holds the lower-case names to remove, which include those of `put`."""

    __slots__ = ("add", "put", "remove")

    def __init__(self, edit: HeaderEdit) -> None:
        self.put = tuple((name.encode(), value.encode("utf-8")) for name, value in edit.set)
        self.add = tuple((name.encode(), value.encode("utf-8")) for name, value in edit.add)
        self.remove = frozenset(
            name.lower() for name in (*(n.encode() for n in edit.remove), *(n for n, _ in self.put))
        )


_CONTENT_FIELDS: Final = frozenset(
    (
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-range",
        b"content-type",
        b"etag",
        b"last-modified",
        b"location",
    )
)
"""Fields that describe the content of one response; those of the proxy's own are not edited."""


def _without_content_fields(edit: HeaderEdit) -> HeaderEdit:
    """Return the edits for the proxy's own responses."""
    if not edit.always:
        return HeaderEdit()

    def keep(pair: tuple[str, str]) -> bool:
        return pair[0].lower().encode() not in _CONTENT_FIELDS

    remove = tuple(name for name in edit.remove if name.lower().encode() not in _CONTENT_FIELDS)
    return HeaderEdit(tuple(filter(keep, edit.set)), tuple(filter(keep, edit.add)), remove)


def _compile_edits(edit: HeaderEdit) -> CompiledEdits | None:
    """Return the edits as bytes; None if there are none."""
    return CompiledEdits(edit) if edit.set or edit.add or edit.remove else None


def _compile_filters(config: Filters) -> "CompiledFilters":
    """Return the compiled filters of a route. Their modules are loaded with the first ones, so that
    a worker without filters starts as fast as before."""
    from proxy.filters.compiled import CompiledFilters

    return CompiledFilters(config)


class CompiledRoute:
    """A route of the snapshot, compiled.

    - `route`: the route as the snapshot has it.
    - `targets`: its targets whose service exists, with that service.
    - `service`: the service if there is exactly one target, else None.
    - `revision`: the revision that this target asks for; empty for any.
    - `request_edits`, `response_edits`: header edits, or None.
    - `own_response_edits`: those of the proxy's own responses, or None.
    - `limiter`, `fault`, `mirror`: rate limiter, fault to inject, service that gets copies; each
      may be None.
    - `filters`: the compiled filters, or None. If they edit requests or responses,
      `request_edits` or `response_edits` is not None.
    - `stripped_prefix`: the prefix that is stripped from the path; empty for none.
    - `passes_through`: whether requests pass without any of the route's own rules.
    - `fast_path_ok`: whether all its requests may take the fast path.
    """

    def __init__(
        self,
        route: Route,
        services: dict[str, ServiceState],
        limiters: Limiters,
        row: WorkerRow | None = None,
    ) -> None:
        self.route = route
        self.targets: list[tuple[Target, ServiceState]] = [
            (target, services[target.service])
            for target in route.targets
            if target.service in services
        ]
        self.service = self.targets[0][1] if len(self.targets) == 1 else None
        self.revision = self.targets[0][0].revision if self.service else ""
        self.request_edits = _compile_edits(route.request_headers)
        self.response_edits = _compile_edits(route.response_headers)
        self.own_response_edits = _compile_edits(_without_content_fields(route.response_headers))
        self.filters = _compile_filters(route.filters) if route.filters is not None else None
        if self.filters is not None and self.filters.edits_responses and not self.response_edits:
            self.response_edits = CompiledEdits(HeaderEdit())
        if self.filters is not None and self.filters.edits_requests and not self.request_edits:
            self.request_edits = CompiledEdits(HeaderEdit())
        self.limiter = _limiter_of(route, limiters, row)
        self.mirror = services.get(route.mirror)
        self._prefix = route.path.encode().rstrip(b"/")
        self._replacement = route.replace.encode().rstrip(b"/")
        self._rewrites = bool(route.strip or route.replace)
        self.stripped_prefix = self._prefix if route.strip else b""
        fault = route.fault
        self.fault = fault if fault is not None and fault.share > 0.0 else None
        self.passes_through = not (
            self.request_edits
            or self.limiter
            or self._rewrites
            or self.fault
            or route.client_certificate
            or route.redirect
            or self.mirror
            or self.filters
        )
        self.fast_path_ok = (
            self.passes_through
            and not route.background
            and self.response_edits is None
            and not self.revision
            and self.service is not None
            and self.service.fast_path_ok
        )

    def is_strict(self, listener: Listener, guards: PathGuards) -> bool:
        """Return whether paths with several readings are refused on this route, for requests to
        `listener`; `guards` are those of the host."""
        policy = self.route.paths or listener.paths
        return policy == "strict" or (not policy and guards.protect(self._prefix))

    def rewrite_target(self, target: bytes) -> bytes | None:
        """Return the target for the upstream: with the route's prefix stripped or replaced, else
        unchanged. None if the rest of a rewritten path climbs out of the prefix.

        Without a replacement it begins with exactly one slash: a redirect to `//name`, or to
        `/\\name` in browsers, would lead to another host.
        """
        if not self._rewrites or target[:1] != b"/":
            return target
        rest = target[len(self._prefix) :]
        if climbs(rest):
            return None
        if not self._replacement:
            return b"/" + rest.lstrip(b"/\\")
        return self._replacement + rest


def _is_guarded(route: Route, allowing: set[str]) -> bool:
    """Return whether a route restricts who may use it: by conditions, a limit, client certificates,
    passwords, another service, maintenance, an answer instead of the service's, or because one of
    its services is in `allowing`, those with an `allow` list."""
    fault, filters = route.fault, route.filters
    return bool(
        route.matches
        or route.rate_limit
        or route.client_certificate
        or (fault is not None and fault.abort)
        or (filters and (filters.basic_auth or filters.forward_auth or filters.maintenance))
        or any(target.service in allowing for target in route.targets)
    )


def _limiter_of(route: Route, limiters: Limiters, row: WorkerRow | None) -> RateLimiter | None:
    """The limiter of a route: the one from before if its rate limit is unchanged."""
    limit = route.rate_limit
    if not limit:
        return None
    known = limiters.get(route.id)
    return known[1] if known and known[0] == limit else RateLimiter(limit, route.id, row)


class Routing:
    """The routing of one generation.

    - `services`: the service states by name.
    - `credentials`: the calling service by its token.
    - `head_seconds`: seconds that a client has to send a request head.
    - `trusted`: proxies whose forwarding headers are trusted.
    - `table`, `routes`: the match of host and path to a route, and the compiled routes by id.
    - `fast_path_calls`: calls between services that may take the fast path; the called service
      and the caller, by listener address, source address, and host or token path.
    - `limiters`: the rate limiters, for the next generation.
    - `virtual`: the service's name by virtual address, `HOST:PORT`.
    - `challenges`: the answers to a certificate authority, by request target.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        services: dict[str, ServiceState],
        limiters: Limiters,
        row: WorkerRow | None = None,
    ) -> None:
        self.generation: Generation = snapshot.generation
        self.services = services
        self._with_capitals = {
            name.lower(): service for name, service in services.items() if name != name.lower()
        }
        self.credentials = {k.encode(): v for k, v in snapshot.credentials.items()}
        self._callers = snapshot.callers
        self.virtual = snapshot.virtual
        by_http = [each for each in snapshot.challenges if each.type == "http-01"]
        self.challenges = {
            CHALLENGE_PATH + each.token.encode(): each.key_authorization for each in by_http
        }
        self._challenged = {each.domain.encode() for each in by_http}
        self._unknown_callers: dict[tuple[str, str], tuple[str, str]] = {}
        self._outsiders: dict[tuple[str, str], bool] = {}
        self._routed = {target.service for route in snapshot.routes for target in route.targets}
        # The service is not known before the head is: the longest timeout applies.
        self.head_seconds = max((s.timeouts.head for s in snapshot.services), default=10.0)
        self.trusted = TrustedNetworks(snapshot.trusted_proxies)
        allowing = {s.name for s in snapshot.services if s.allow is not None}
        self.table = RouteTable(
            snapshot.routes, {route.id for route in snapshot.routes if _is_guarded(route, allowing)}
        )
        self._clients: dict[tuple[str, tuple[bytes, ...]], str] = {}
        self._fast_path_routes: dict[bytes, CompiledRoute | None] = {}
        self.fast_path_calls: dict[tuple[str, str, bytes], tuple[ServiceState, str]] = {}
        self.routes = {
            route.id: CompiledRoute(route, services, limiters, row) for route in snapshot.routes
        }
        self.limiters: Limiters = {
            compiled.route.id: (compiled.route.rate_limit, compiled.limiter)
            for compiled in self.routes.values()
            if compiled.limiter is not None
        }

    def find_client(self, peer: str, forwarded: tuple[bytes, ...]) -> str:
        """Return the address of the client that sent a request through the trusted proxy `peer`, by
        the field lines about earlier hops."""
        key = (peer, forwarded)
        found = self._clients.get(key)
        if found is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._clients.clear()
            found = self._clients[key] = find_client(forwarded, peer, self.trusted.has)
        return found

    def fast_path_route(self, host: bytes) -> CompiledRoute | None:
        """Return the route that gets all requests for a host, if it exists and lets them take
        the fast path."""
        try:
            return self._fast_path_routes[host]
        except KeyError:
            pass
        route = self.table.only_route(host)
        compiled = self.routes[route.id] if route is not None else None
        if compiled is not None and not compiled.fast_path_ok:
            compiled = None
        if self._challenged and normalize_host(host) in self._challenged:
            compiled = None  # one of its requests may be that of a certificate authority
        if len(self._fast_path_routes) >= MAX_CACHED_HOSTS:
            self._fast_path_routes.clear()
        self._fast_path_routes[host] = compiled
        return compiled

    def find_service(self, project: str, name: str) -> ServiceState | None:
        """Return the service that a name means in a project: one of the project, else one by its
        full name."""
        key = f"{project}/{name}" if project else name
        service = self.services.get(key)
        if service is None:
            service = self.services.get(name)
        if service is None and self._with_capitals:  # names of hosts arrive in lower case
            service = self._with_capitals.get(key)
        return service

    def find_called(self, listener: Listener, project: str, name: str) -> ServiceState | None:
        """Return the service that is called at a mesh listener. `name` is the request's host; it
        counts only where the listener itself does not lead to one service."""
        if listener.service:
            return self.services.get(listener.service)
        if listener.kind == "virtual":
            return self.services.get(self.virtual.get(listener.address, ""))
        return self.find_service(project, name)

    def identify_caller(self, listener: Listener, address: str) -> tuple[str, str]:
        """Return the project in which names are resolved and the calling service, for a source
        address at a mesh listener. Each may be empty."""
        caller = self._callers.get(address)
        if caller is not None:
            return caller.rpartition("/")[0], caller
        known = self._unknown_callers.get((listener.address, address))
        if known is None:
            if len(self._unknown_callers) >= MAX_UNKNOWN_CALLERS:
                self._unknown_callers.clear()
            known = _caller_by_network(listener, address)
            self._unknown_callers[(listener.address, address)] = known
        return known

    def is_known(self, address: str) -> bool:
        """Return whether an address is that of a replica."""
        return address in self._callers

    def is_inside(self, listener: Listener, address: str) -> bool:
        """Return whether an address may be a container's in the network of a listener."""
        inside = bool(listener.sources) and TrustedNetworks(listener.sources).has(address)
        return inside and address != _own_address(listener)

    def may_call_unknown(self, listener: Listener, address: str, service: ServiceState) -> bool:
        """Return whether an unknown caller may use a service without an `allow` list at a mesh
        listener. One from outside of the listener's network may only use services that a route
        makes public; hosts and other networks can send packets to any gateway."""
        if service.name in self._routed or not listener.sources:
            return True
        key = (listener.address, address)
        outside = self._outsiders.get(key)
        if outside is None:
            if len(self._outsiders) >= MAX_UNKNOWN_CALLERS:
                self._outsiders.clear()
            inside = TrustedNetworks(listener.sources).has(address)
            # The engine masquerades the host's own connections, with another address of the host.
            host = address == _own_address(listener) or is_own_address(address)
            outside = self._outsiders[key] = not (inside or host)
        return not outside


def _own_address(listener: Listener) -> str:
    """Return the host's address that a TCP listener is at."""
    return listener.address.rpartition(":")[0].strip("[]")


def _caller_by_network(listener: Listener, address: str) -> tuple[str, str]:
    """Project and caller for an address that is not a known replica's: the service that owns the
    listener's network, if the address is in it. The gateway's own address belongs to the host."""
    project, _, name = listener.caller.rpartition("/")
    if listener.sources:
        inside = TrustedNetworks(listener.sources).has(address)
        name = name if inside and address != _own_address(listener) else ""
    return project, listener.caller if name else ""
