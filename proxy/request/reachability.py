"""Keeps requests from an endpoint that accepts no connection, and finds out when it accepts one.

`Exchange` and `Hedge` report what they saw. Only services whose requests wait for one
(`ServiceState.parks_on_refusal`) have this, and endpoints on other nodes: for others, ejection is
enough. While an endpoint is unreachable, a `Probe` opens connections to it in short steps. The
first one that is accepted carries the first request that waits. Connections report errors: several
endpoints of one node that are silent make the node lost, and all its endpoints unreachable at once.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.policy import lost_node
from proxy.request import connection_pool, dispatch, failure
from proxy.request.failure import Failure
from proxy.request.sinks import ResponseSink
from proxy.state.descriptors import is_shortage
from proxy.transport.silence import SILENCE, is_silence

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.upstream import Upstream
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

FIRST_STEP: Final = 0.02
"""Seconds between the first two probes of an endpoint."""
LONGEST_STEP: Final = 0.25
"""Seconds between two probes at most: what a request waits longer than it has to."""
STEP_GROWTH: Final = 1.5
"""Factor from one step to the next."""
PROBE_SECONDS: Final = 0.5
"""Seconds for one probe. An address without a host does not refuse, and the first packet that its
new host can answer would be the repetition of one, a second or more later."""


def connect_failed(
    plane: "DataPlane",
    service: "ServiceState",
    endpoint: "EndpointState",
    why: Failure,
    since: float,
    now: float,
) -> None:
    """Take note that an endpoint did not accept a connection that was asked for at `since`."""
    if not service.parks_on_refusal or not endpoint.serving:
        return
    if why is failure.CONNECT_TIMEOUT and endpoint.has_answered_since(since):
        # It is there, and only too busy to accept one more connection.
        return
    _exclude(plane, service, endpoint, now, refused=True)


def suspect(
    plane: "DataPlane", service: "ServiceState", endpoint: "EndpointState", now: float
) -> None:
    """Find out whether an endpoint that closed a connection without an answer has ended."""
    if endpoint.serving:
        _exclude(plane, service, endpoint, now, refused=False)


def connection_ended(plane: "DataPlane", endpoint: "EndpointState", error: BaseException) -> None:
    """Take note of an error that ended a connection, or an attempt to open one: the endpoint's
    machine may not answer, and its whole node may be lost."""
    node = endpoint.endpoint.node
    if not node or endpoint.unreachable or not endpoint.serving or not is_silence(error):
        return
    now = plane.clock()
    recent = lost_node.forget_old(plane.silent_since.get(node, {}), SILENCE, now)
    silent = plane.silent_since[node] = {**recent, endpoint.id: now}
    there = [
        (service, state)
        for service in plane.services.values()
        for state in service.endpoints.values()
        if state.endpoint.node == node
    ]
    ids = {state.id for _, state in there}
    last_answer = max((state.latency_estimate.observed_at() for _, state in there), default=0.0)
    lost = lost_node.is_lost(silent, len(ids), last_answer, SILENCE, now)
    cause = "its machine does not answer"
    if lost:
        cause = f"node {node} does not answer: {len(silent)} of {len(ids)} replicas are silent"
        plane.silent_since.pop(node)
    given_up: list[EndpointState] = []
    for service, state in there:
        if (lost or state.id == endpoint.id) and state.serving and not state.unreachable:
            _exclude(plane, service, state, now, refused=True)
            given_up.append(state)
    plane.give_up_endpoints(given_up, cause)


def _exclude(
    plane: "DataPlane",
    service: "ServiceState",
    endpoint: "EndpointState",
    now: float,
    *,
    refused: bool,
) -> None:
    probed = endpoint.unreachable
    service.exclude(endpoint, now, refused=refused)
    if not probed:
        probe = Probe(plane, service, endpoint)
        plane.probe_begun(probe)
        probe.start(FIRST_STEP if refused else 0.0)


class Probe(ResponseSink):
    """Opens connections to an endpoint until one is accepted."""

    def __init__(
        self, plane: "DataPlane", service: "ServiceState", endpoint: "EndpointState"
    ) -> None:
        self._plane = plane
        self._service = service
        self._endpoint = endpoint
        self._step = FIRST_STEP
        self._upstream: Upstream | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, delay: float) -> None:
        """Probe for the first time after `delay` seconds."""
        self._timer = self._plane.loop.call_later(delay, self._dial)

    def stop(self) -> None:
        """Probe no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upstream is not None:
            self._upstream.discard()
            self._upstream = None

    def _dial(self) -> None:
        endpoint, service = self._endpoint, self._service
        self._timer = None
        if not (endpoint.unreachable and endpoint.serving and service.probes_endpoints):
            endpoint.mark_unreachable(False)
            self._plane.probe_over(self)
            return
        limit = service.config.limits.endpoint_connections
        if limit and endpoint.connections >= service.limits.connections_left(endpoint):
            self._try_later()
            return
        self._timer = self._plane.loop.call_later(PROBE_SECONDS, self._timed_out)
        self._upstream = self._plane.connect(endpoint, self)

    def _timed_out(self) -> None:
        self._timer = None
        self._failed()

    def connect_failed(self, error: OSError) -> None:
        self._upstream = None
        if is_shortage(error, answered=self._endpoint.has_answered_since(0.0)):
            self.stop()
            self._try_later()
        elif failure.from_connect_error(error) is failure.TLS:
            # It accepts connections: what is wrong with them is for requests to report.
            self._accepted()
        else:
            self._failed()

    def _failed(self) -> None:
        self.stop()
        self._try_later()
        service, now = self._service, self._plane.clock()
        if self._endpoint.serving:
            service.exclude(self._endpoint, now, refused=True)
        if service.waiting:
            # A request that waits for the outcome may go to another endpoint.
            dispatch.wake(service, now)

    def _try_later(self) -> None:
        self._timer = self._plane.loop.call_later(self._step, self._dial)
        self._step = min(self._step * STEP_GROWTH, LONGEST_STEP)

    def connected(self, upstream: "Upstream") -> None:
        endpoint = self._endpoint
        connection_pool.keep(endpoint, upstream, self._plane.clock())
        self._accepted()
        # An origin that serves one connection at a time would wait for a request on it.
        connection_pool.close_unused(endpoint, upstream)

    def _accepted(self) -> None:
        """End: requests may be sent to the endpoint again."""
        self._upstream = None
        self.stop()
        plane, service = self._plane, self._service
        now = plane.clock()
        plane.probe_over(self)
        service.include(self._endpoint, now)
        dispatch.wake(service, now)
