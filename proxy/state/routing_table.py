"""A snapshot made ready for use: what a request is for, and who may answer it.

The routing of one generation is built off the request path and swapped in as one reference.
Live state (`ServiceState`, `EndpointState`, rate limiters) is carried over by name, so that a
swap loses none of it.
"""

from typing import Final

from proxy.ipc.shared_memory import WorkerRow
from proxy.policy.ratelimit import RateLimiter
from proxy.policy.route import MAX_CACHED_HOSTS, RouteTable
from proxy.state.service_state import ServiceState
from proxy.state.trusted_networks import TrustedNetworks
from proxy.wire.snapshot import (
    Generation,
    HeaderEdit,
    Listener,
    Route,
    Snapshot,
    Target,
)

STRANGERS_REMEMBERED: Final = 4096


class Edits:
    """A route's header edits, as bytes."""

    __slots__ = ("add", "put", "remove")

    def __init__(self, edit: HeaderEdit) -> None:
        self.put = tuple((name.encode(), value.encode("utf-8")) for name, value in edit.set)
        self.add = tuple((name.encode(), value.encode("utf-8")) for name, value in edit.add)
        self.remove = frozenset(
            name.lower() for name in (*(n.encode() for n in edit.remove), *(n for n, _ in self.put))
        )

    @classmethod
    def of(cls, edit: HeaderEdit) -> "Edits | None":
        """None where there is nothing to do."""
        return cls(edit) if edit.set or edit.add or edit.remove else None


class CompiledRoute:
    """What is done to the requests of a route, compiled.

    `only` is the service when there is a single target. `plain` says that requests and
    answers pass without any of the route's own treatment.
    """

    def __init__(
        self, route: Route, services: dict[str, ServiceState], together: WorkerRow | None = None
    ) -> None:
        self.route = route
        self.targets: list[tuple[Target, ServiceState]] = [
            (target, services[target.service])
            for target in route.targets
            if target.service in services
        ]
        self.only = self.targets[0][1] if len(self.targets) == 1 else None
        self.revision = self.targets[0][0].revision if self.only else ""
        self.request = Edits.of(route.request_headers)
        self.response = Edits.of(route.response_headers)
        limit = route.rate_limit
        self.limiter = RateLimiter(limit, route.id, together) if limit else None
        self.mirror = services.get(route.mirror)
        self.prefix = route.path.encode().rstrip(b"/")
        self.replacement = route.replace.encode().rstrip(b"/")
        self.rewrites = bool(route.strip or route.replace)
        fault = route.fault
        self.fault = fault if fault is not None and fault.share > 0.0 else None
        self.plain = not (
            self.request
            or self.limiter
            or self.rewrites
            or self.fault
            or route.redirect
            or self.mirror
        )
        self.straight = (
            self.plain
            and self.response is None
            and not self.revision
            and self.only is not None
            and self.only.simple
        )

    def target(self, target: bytes) -> bytes:
        """The target for the origin: the route's prefix stripped or replaced, else as it came."""
        if not self.rewrites or target[:1] != b"/":
            return target
        rest = target[len(self.prefix) :]
        new = self.replacement + rest
        return new if new[:1] == b"/" else b"/" + new


class Routing:
    """One generation, ready for use."""

    def __init__(
        self,
        snapshot: Snapshot,
        services: dict[str, ServiceState],
        limiters: dict[str, tuple[object, RateLimiter]],
        together: WorkerRow | None = None,
    ) -> None:
        self.generation: Generation = snapshot.generation
        self.services = services
        self.credentials = {k.encode(): v for k, v in snapshot.credentials.items()}
        self._callers = snapshot.callers
        self._strangers: dict[tuple[str, str], tuple[str, str]] = {}
        # Whose request it will be is not known yet: the most patient service decides.
        self.head_seconds = max((s.timeouts.head for s in snapshot.services), default=10.0)
        self.trusted = TrustedNetworks(snapshot.trusted_proxies)
        self.table = RouteTable(snapshot.routes)
        self._straight: dict[bytes, CompiledRoute | None] = {}
        # Calls that may take the short way: by listener, address, and host or token path.
        self.calls: dict[tuple[str, str, bytes], tuple[ServiceState, str]] = {}
        self.plans = {
            route.id: CompiledRoute(route, services, together) for route in snapshot.routes
        }
        for plan in self.plans.values():
            known = limiters.get(plan.route.id)
            if plan.limiter is not None and known and known[0] == plan.route.rate_limit:
                plan.limiter = known[1]
        self.limiters: dict[str, tuple[object, RateLimiter]] = {
            plan.route.id: (plan.route.rate_limit, plan.limiter)
            for plan in self.plans.values()
            if plan.limiter is not None
        }

    def straight(self, host: bytes) -> CompiledRoute | None:
        """The plan of all requests for a host, where one takes them all as they are to a
        simple service (see `proxy.request.fast_path`)."""
        try:
            return self._straight[host]
        except KeyError:
            pass
        route = self.table.only_route(host)
        plan = self.plans[route.id] if route is not None else None
        if plan is not None and not plan.straight:
            plan = None
        if len(self._straight) >= MAX_CACHED_HOSTS:
            self._straight.clear()
        self._straight[host] = plan
        return plan

    def named(self, project: str, name: str) -> ServiceState | None:
        """The service that a name means in a project: one of its own, else one by its full name."""
        service = self.services.get(f"{project}/{name}" if project else name)
        return service if service is not None else self.services.get(name)

    def caller(self, listener: Listener, address: str) -> tuple[str, str]:
        """Whose names hold (a project) and who calls (a service), for a source address at a
        listener of the mesh; each may be empty."""
        caller = self._callers.get(address)
        if caller is not None:
            return caller.rpartition("/")[0], caller
        known = self._strangers.get((listener.address, address))
        if known is None:
            if len(self._strangers) >= STRANGERS_REMEMBERED:
                self._strangers.clear()
            known = self._strangers[(listener.address, address)] = _stranger(listener, address)
        return known


def _stranger(listener: Listener, address: str) -> tuple[str, str]:
    """The caller at an address that is no known replica's: whoever the network belongs to, if
    it comes from there. The gateway's own address is the host's."""
    project, _, name = listener.caller.rpartition("/")
    if listener.sources:
        inside = TrustedNetworks(listener.sources).has(address)
        own = listener.address.rpartition(":")[0].strip("[]")
        name = name if inside and address != own else ""
    return project, listener.caller if name else ""
