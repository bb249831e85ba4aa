"""The live state of one service in a worker."""

from collections import deque
from typing import TYPE_CHECKING

from proxy.http1.response_template import ResponseTemplates
from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.counters import ServiceCounters
from proxy.policy import balance, eject, retry
from proxy.policy.split import Splitter
from proxy.state.concurrency_limits import ConcurrencyLimits
from proxy.state.endpoint_state import NEVER, NO_ENDPOINTS, Endpoints, EndpointState
from proxy.wire.snapshot import Service

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange


class ServiceState:
    """One service's live state: who may be picked, who waits, what was counted.

    `ready` are the endpoints of the snapshot that take new requests, `candidates` those of
    them that are not ejected. `waiting` holds parked and queued exchanges, the oldest first.
    `row` is where this worker, one of `workers`, shares with the others.
    """

    def __init__(self, service: Service, row: WorkerRow | None = None, workers: int = 1) -> None:
        self.name = service.name
        self.config = service
        self.counters = ServiceCounters()
        self.budget = _budget(service, workers)
        self.picker = balance.make_picker(service.balance, service.endpoints)
        self.endpoints: dict[str, EndpointState] = {}
        self.ready: Endpoints = NO_ENDPOINTS
        self.candidates: Endpoints = NO_ENDPOINTS
        self.by_revision: dict[str, Endpoints] = {}
        self.waiting: deque[Exchange] = deque()
        self.parked_bytes = 0
        self.in_flight = 0
        self.answers = ResponseTemplates()
        self.bounds = ConcurrencyLimits(self, row, workers)
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
            self.picker = balance.make_picker(service.balance, service.endpoints)
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
                share = balance.slow_start_factor(wall - state.endpoint.ready_since, window)
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
        cause = eject.record_failure(self.config.ejection, state.health, peers, now)
        state.fast_failing = state.health.fast_failing
        if cause:
            self.counters.ejections += 1
            self.refresh(now)
        return cause


def _budget(service: Service, workers: int) -> retry.RetryBudget:
    """This worker's part: retries go by its own requests, and the reserve is shared out."""
    return retry.RetryBudget(service.retries.budget, service.retries.reserve / workers)


def _same_place(state: EndpointState, host: str, port: int) -> bool:
    return state.endpoint.host == host and state.endpoint.port == port
