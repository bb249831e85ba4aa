"""Passive outlier ejection: endpoints that answer worse than their peers get no requests for a
while. Pure.

Called by `proxy.request`; `proxy.state.endpoint_state` owns the health records. After Envoy's
outlier detection. An endpoint is ejected for consecutive failures, or for a success rate or
latency far from that of its peers; each time for twice as long. It returns by way of one probe
request: half open until that is answered. At most a share of a service's endpoints is ejected at
once, and never the last one.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import median
from typing import Final

from proxy.wire.snapshot import Ejection

INTERVAL: Final = 10.0
"""Seconds between sweeps (Envoy's default)."""
MIN_HOSTS: Final = 5
"""Endpoints with enough requests that the success-rate rule needs (Envoy's default)."""
MIN_REQUESTS: Final = 100
"""Answers per interval that an endpoint needs for the success-rate and latency rules (Envoy)."""
STDEVS: Final = 1.9
"""Standard deviations below the mean success rate that make an outlier (Envoy's default)."""
MIN_GAP: Final = 0.05
"""Smallest gap to the mean success rate that makes an outlier. Without it, an endpoint at 99 %
among endpoints at 100 % would be one."""
FAILURE_SHARE: Final = 0.85
"""Failure share that makes an outlier (Envoy's failure percentage threshold)."""
FAILURE_REQUESTS: Final = 50
"""Answers per interval that the failure-share rule needs (Envoy's default)."""
MIN_PEER_SUCCESS: Final = 0.5
"""Mean success rate of the peers below which the failure-share rule does not apply: the cause is
then probably not this endpoint."""
MIN_LATENCY_PEERS: Final = 2
"""Peers that the latency rule needs for a median."""
FAILURE_WEIGHT: Final = 0.2
"""Weight of one answer in `failure_ewma`: an average over about five answers."""
NEGLIGIBLE_EWMA: Final = 0.01
"""A `failure_ewma` below this becomes 0, so that healthy endpoints skip the arithmetic."""
FAST_FAILING_EWMA: Final = 0.3
"""`failure_ewma` above which low latency no longer counts in favour: two recent failures."""
MAX_DOUBLINGS: Final = 30
"""Bound of the backoff's exponent, against overflow; `Ejection.longest` applies long before."""


class EndpointHealth:
    """One worker's record of how an endpoint answers.

    - `consecutive`: failures in a row
    - `successes`, `failures`, `success_seconds`: counts of this interval, and total latency of
      the successes in seconds
    - `failure_ewma`: moving average of the failure share, 0 to 1
    - `ejected`: whether it is ejected
    - `ejected_until`: when it may be probed (monotonic seconds)
    - `ejection_count`: recent ejections; decreases with each healthy interval
    - `probing`: whether a probe request is in flight
    """

    __slots__ = (
        "consecutive",
        "ejected",
        "ejected_until",
        "ejection_count",
        "failure_ewma",
        "failures",
        "id",
        "probing",
        "success_seconds",
        "successes",
    )

    def __init__(self, id: str) -> None:
        self.id = id
        self.consecutive = 0
        self.successes = 0
        self.failures = 0
        self.success_seconds = 0.0
        self.failure_ewma = 0.0
        self.ejected = False
        self.ejected_until = 0.0
        self.ejection_count = 0
        self.probing = False

    @property
    def fast_failing(self) -> bool:
        """Whether recent failures are so frequent that low latency must not count in favour."""
        return self.failure_ewma > FAST_FAILING_EWMA

    def may_probe(self, now: float) -> bool:
        """Return whether an ejected endpoint is due for a probe request.

        The caller that sends one sets `probing`.
        """
        return self.ejected and not self.probing and now >= self.ejected_until

    def record_success(self, seconds: float) -> bool:
        """Count a good answer that took `seconds`; return whether it ended an ejection."""
        self.successes += 1
        self.success_seconds += seconds
        self.consecutive = 0
        if self.failure_ewma:
            self.failure_ewma = (
                self.failure_ewma * (1.0 - FAILURE_WEIGHT)
                if self.failure_ewma > NEGLIGIBLE_EWMA
                else 0.0
            )
        if not self.ejected:
            return False
        if not self.probing:
            return False  # answers a request from before the ejection
        self.ejected = self.probing = False
        self.failure_ewma = 0.0
        return True

    def record_abandoned(self) -> None:
        """Record a request that ended without an answer to evaluate (the client left)."""
        self.probing = False


def record_failure(
    policy: Ejection, health: EndpointHealth, peers: Sequence[EndpointHealth], now: float
) -> str | None:
    """Count a failure; return the cause if it ejects the endpoint.

    `peers` are all endpoints of the service, including this one.
    """
    health.failures += 1
    health.consecutive += 1
    health.failure_ewma += (1.0 - health.failure_ewma) * FAILURE_WEIGHT
    if health.ejected:
        if not health.probing:
            return None
        _eject(policy, health, now)
        return "the probe request failed"
    if policy.consecutive and health.consecutive >= policy.consecutive and may_eject(policy, peers):
        cause = f"{health.consecutive} failures in a row"
        _eject(policy, health, now)
        return cause
    return None


def eject_outliers(
    policy: Ejection, peers: Sequence[EndpointHealth], now: float
) -> list[tuple[EndpointHealth, str]]:
    """End an interval: eject outliers and reset the counts. Call it every `INTERVAL` seconds.

    Return the ejected endpoints with the cause.
    """
    ejected: list[tuple[EndpointHealth, str]] = []
    outliers = _find_outliers(policy, [health for health in peers if not health.ejected])
    for health, cause in outliers:
        if may_eject(policy, peers):
            _eject(policy, health, now)
            ejected.append((health, cause))
    ejected_ids = {id(health) for health, _ in ejected}
    for health in peers:
        health.successes = health.failures = 0
        health.success_seconds = 0.0
        health.failure_ewma *= 0.5
        if health.ejection_count and not health.ejected and id(health) not in ejected_ids:
            health.ejection_count -= 1
    return ejected


def may_eject(policy: Ejection, peers: Sequence[EndpointHealth]) -> bool:
    """Return whether one more endpoint may be ejected.

    The policy's share must allow it (it always allows one), and another endpoint must remain.
    """
    ejected = sum(health.ejected for health in peers)
    return ejected + 1 < len(peers) and ejected < max(1, int(policy.share * len(peers)))


def _eject(policy: Ejection, health: EndpointHealth, now: float) -> None:
    health.ejected = True
    health.probing = False
    health.consecutive = 0
    backoff = policy.base * 2.0 ** min(health.ejection_count, MAX_DOUBLINGS)
    health.ejected_until = now + min(policy.longest, backoff)
    health.ejection_count += 1


def _find_outliers(
    policy: Ejection, healths: Sequence[EndpointHealth]
) -> list[tuple[EndpointHealth, str]]:
    """Return outliers with the cause, the worst first: not all may fit into the policy's share."""
    found: list[tuple[float, EndpointHealth, str]] = []
    if policy.success_rate:
        found += _find_by_success(healths)
    if policy.latency_factor > 0.0:
        found += _find_by_latency(policy.latency_factor, healths)
    found.sort(key=lambda item: item[0])
    unique: dict[int, tuple[EndpointHealth, str]] = {}
    for _, health, cause in found:
        unique.setdefault(id(health), (health, cause))
    return list(unique.values())


def _find_by_success(healths: Sequence[EndpointHealth]) -> list[tuple[float, EndpointHealth, str]]:
    """Return (rank, endpoint, cause) of outliers by success rate; the rank is the rate.

    Envoy's success-rate rule applies if enough endpoints got enough requests. Its
    failure-percentage rule applies if the peers do better: when all fail, none is an outlier.
    """
    rates = [
        (h, h.successes / (h.successes + h.failures))
        for h in healths
        if h.successes + h.failures >= FAILURE_REQUESTS
    ]
    busy = [(h, rate) for h, rate in rates if h.successes + h.failures >= MIN_REQUESTS]
    found = []
    if len(busy) >= MIN_HOSTS:
        mean = sum(rate for _, rate in busy) / len(busy)
        stdev = sqrt(sum((rate - mean) ** 2 for _, rate in busy) / len(busy))
        threshold = min(mean - STDEVS * stdev, mean - MIN_GAP)
        for health, rate in busy:
            if rate < threshold:
                cause = f"success rate {rate:.0%}, mean of all {mean:.0%}"
                found.append((rate, health, cause))
    for health, rate in rates:
        others = [other for peer, other in rates if peer is not health]
        if rate <= 1.0 - FAILURE_SHARE and others and sum(others) / len(others) >= MIN_PEER_SUCCESS:
            found.append((rate, health, f"{1.0 - rate:.0%} of its answers failed"))
    return found


def _find_by_latency(
    factor: float, healths: Sequence[EndpointHealth]
) -> list[tuple[float, EndpointHealth, str]]:
    """Return (rank, endpoint, cause) of endpoints slower than `factor` times their peers' median.

    The rank is above 1, so that failing endpoints come first.
    """
    means = [(h, h.success_seconds / h.successes) for h in healths if h.successes >= MIN_REQUESTS]
    found = []
    for health, mean in means:
        others = [other for peer, other in means if peer is not health]
        if len(others) < MIN_LATENCY_PEERS:
            continue
        usual = median(others)
        if mean > factor * usual > 0.0:
            cause = f"mean latency {mean * 1e3:.3g} ms, {mean / usual:.3g} times its peers'"
            found.append((1.0 + usual / mean, health, cause))
    return found
