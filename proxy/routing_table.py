"""A snapshot made ready for use: what a request is for, and who may answer it.

The routing of one generation is built off the request path and swapped in as one reference.
Live state (`ServiceState`, `EndpointState`, rate limiters) is carried over by name, so that a
swap loses none of it.
"""

import ipaddress
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.bounds import Bounds
from proxy.endpoint_state import EndpointState
from proxy.http1.answers import Answers
from proxy.observe.counters import ServiceCounters
from proxy.policy import balance, eject, retry
from proxy.policy.ratelimit import Limiter
from proxy.policy.route import HOSTS_REMEMBERED, Table
from proxy.policy.split import Splitter
from proxy.shared_cells import Row
from proxy.wire.snapshot import (
    Generation,
    HeaderEdit,
    Listener,
    Route,
    Service,
    Snapshot,
    Target,
)

if TYPE_CHECKING:
    from proxy.exchange import Exchange

STRANGERS_REMEMBERED: Final = 4096
NEVER: Final = float("inf")
Endpoints = tuple[EndpointState, ...]
_NOBODY: Final[Endpoints] = ()


class ServiceState:
    """One service's live state: who may be picked, who waits, what was counted.

    `ready` are the endpoints of the snapshot that take new requests, `candidates` those of
    them that are not ejected. `waiting` holds parked and queued exchanges, the oldest first.
    `row` is where this worker, one of `workers`, shares with the others.
    """

    def __init__(self, service: Service, row: Row | None = None, workers: int = 1) -> None:
        self.name = service.name
        self.config = service
        self.counters = ServiceCounters()
        self.budget = _budget(service, workers)
        self.picker = balance.make(service.balance, service.endpoints)
        self.endpoints: dict[str, EndpointState] = {}
        self.ready: Endpoints = _NOBODY
        self.candidates: Endpoints = _NOBODY
        self.by_revision: dict[str, Endpoints] = {}
        self.waiting: deque[Exchange] = deque()
        self.parked_bytes = 0
        self.in_flight = 0
        self.answers = Answers()
        self.bounds = Bounds(self, row, workers)
        self.limited = False
        self.hedges = False
        self.traces = False
        self.simple = False
        self.split: Splitter | None = None
        self.within = 0.0
        self.first_byte = NEVER
        self.keep_alive = NEVER
        self.tunnel = NEVER
        self.largest_body = NEVER

    def update(self, service: Service, now: float, wall: float) -> list[EndpointState]:
        """Takes over a new definition; the endpoint states that are in it no longer."""
        old = self.config
        self.config = service
        if old.retries != service.retries:
            self.budget = _budget(service, self.bounds.workers)
        hashed = service.balance.algorithm in ("ring-hash", "maglev")
        if old.balance != service.balance or (hashed and old.endpoints != service.endpoints):
            self.picker = balance.make(service.balance, service.endpoints)
        limits = service.limits
        self.hedges = service.retries.hedge_after > 0.0
        self.traces = service.trace is not None
        self.limited = bool(
            limits.service_in_flight
            or limits.endpoint_in_flight
            or limits.endpoint_connections
            or limits.adaptive
        )
        # What every request asks for, so that it need not be looked up through the policy.
        self.within = service.timeouts.request
        self.first_byte = service.timeouts.first_byte or NEVER
        self.keep_alive = service.timeouts.keep_alive
        self.tunnel = service.timeouts.tunnel or NEVER
        self.largest_body = limits.body or NEVER
        self.split = Splitter(service.split) if service.split is not None else None
        self.simple = not (
            self.limited
            or self.hedges
            or service.trace is not None
            or hashed
            or service.balance.sticky_cookie
            or service.split
        )
        previous = self.endpoints
        self.endpoints = {}
        for endpoint in service.endpoints:
            state = previous.pop(endpoint.id, None)
            if state is not None and not _same_place(state, endpoint.host, endpoint.port):
                previous[endpoint.id] = state
                state = None
            if state is None:
                peak = service.balance.algorithm == "peak-ewma"
                state = EndpointState(
                    self.name, endpoint, self.answers, peak=peak, adaptive=limits.adaptive
                )
            state.adapt(limits.adaptive)
            state.endpoint = endpoint
            state.idle_seconds = service.timeouts.pool
            state.serving = endpoint.state == "ready"
            self.endpoints[endpoint.id] = state
        for state in previous.values():
            state.serving = False
        self.ready = tuple(state for state in self.endpoints.values() if state.serving)
        self.apply_ramp(wall)
        self.refresh(now)
        return list(previous.values())

    def record_spans(self) -> None:
        """Spans are recorded: each request is asked for its trace."""
        self.traces = True

    def retire(self) -> list[EndpointState]:
        """The service is in no snapshot any more; its endpoints finish what they have."""
        gone = list(self.endpoints.values())
        for state in gone:
            state.serving = False
        self.endpoints = {}
        return gone

    def apply_ramp(self, wall: float) -> bool:
        """Sets weights by slow start; whether any endpoint is still in it."""
        window = self.config.balance.slow_start
        ramping = False
        for state in self.ready:
            share = 1.0
            if window and state.endpoint.ready_since:
                share = balance.ramp(wall - state.endpoint.ready_since, window)
            ramping = ramping or share < 1.0
            state.weight = max(state.endpoint.weight, 1e-6) * share
        return ramping

    def refresh(self, now: float) -> None:
        """Works out the candidates anew: whenever an endpoint came, went, was ejected, may be
        probed or was re-admitted."""
        sound = tuple(
            state for state in self.ready if not state.health.ejected or state.health.may_probe(now)
        )
        if not sound or balance.in_panic(len(sound), len(self.ready), self.config.balance.panic):
            sound = self.ready
        if sound != self.candidates:
            self.candidates = sound
        self.by_revision = {}

    def of_revision(self, revision: str) -> Endpoints:
        """The candidates of one revision; all candidates for the empty one."""
        if not revision:
            return self.candidates
        found = self.by_revision.get(revision)
        if found is None:
            found = tuple(s for s in self.candidates if s.endpoint.revision == revision)
            self.by_revision[revision] = found
        return found

    def covers(self, caller: str) -> bool:
        """Whether the list of who may call this service has a caller."""
        allow = self.config.allow
        return allow is None or caller in allow

    def failed(self, state: EndpointState, now: float) -> str | None:
        """Counts a failure of an endpoint; the cause, when that ejected it."""
        peers = [peer.health for peer in self.ready]
        cause = eject.after_failure(self.config.ejection, state.health, peers, now)
        state.fast_failing = state.health.fast_failing
        if cause:
            self.counters.ejections += 1
            self.refresh(now)
        return cause


def _budget(service: Service, workers: int) -> retry.Budget:
    """This worker's part: retries go by its own requests, and the reserve is shared out."""
    return retry.Budget(service.retries.budget, service.retries.reserve / workers)


def _same_place(state: EndpointState, host: str, port: int) -> bool:
    return state.endpoint.host == host and state.endpoint.port == port


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


class Plan:
    """What is done to the requests of a route, compiled.

    `only` is the service when there is a single target. `plain` says that requests and
    answers pass without any of the route's own treatment.
    """

    def __init__(
        self, route: Route, services: dict[str, ServiceState], together: Row | None = None
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
        self.limiter = Limiter(limit, route.id, together) if limit else None
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
        limiters: dict[str, tuple[object, Limiter]],
        together: Row | None = None,
    ) -> None:
        self.generation: Generation = snapshot.generation
        self.services = services
        self.credentials = {k.encode(): v for k, v in snapshot.credentials.items()}
        self._callers = snapshot.callers
        self._strangers: dict[tuple[str, str], tuple[str, str]] = {}
        # Whose request it will be is not known yet: the most patient service decides.
        self.head_seconds = max((s.timeouts.head for s in snapshot.services), default=10.0)
        self.trusted = Trusted(snapshot.trusted_proxies)
        self.table = Table(snapshot.routes)
        self._straight: dict[bytes, Plan | None] = {}
        # Calls that may take the short way: by listener, address, and host or token path.
        self.calls: dict[tuple[str, str, bytes], tuple[ServiceState, str]] = {}
        self.plans = {route.id: Plan(route, services, together) for route in snapshot.routes}
        for plan in self.plans.values():
            known = limiters.get(plan.route.id)
            if plan.limiter is not None and known and known[0] == plan.route.rate_limit:
                plan.limiter = known[1]
        self.limiters: dict[str, tuple[object, Limiter]] = {
            plan.route.id: (plan.route.rate_limit, plan.limiter)
            for plan in self.plans.values()
            if plan.limiter is not None
        }

    def straight(self, host: bytes) -> Plan | None:
        """The plan of all requests for a host, where one takes them all as they are to a
        simple service (see `proxy.usual`)."""
        try:
            return self._straight[host]
        except KeyError:
            pass
        route = self.table.only(host)
        plan = self.plans[route.id] if route is not None else None
        if plan is not None and not plan.straight:
            plan = None
        if len(self._straight) >= HOSTS_REMEMBERED:
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
        inside = Trusted(listener.sources).has(address)
        own = listener.address.rpartition(":")[0].strip("[]")
        name = name if inside and address != own else ""
    return project, listener.caller if name else ""


class Trusted:
    """Networks that an address may be of: those of the proxies in front of this one whose word
    about earlier hops is taken, and those that callers come from."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def has(self, address: str) -> bool:
        """Whether a peer address is one of them."""
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
