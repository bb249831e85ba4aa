"""Passive ejection: endpoints that answer worse than their peers are left alone for a while.

An endpoint goes out for failures in a row, for a success rate or a latency that lies apart from
the others', each time for twice as long. It comes back by way of one probing request: half open
until that is answered. At most a share of a service's endpoints is out, never the last one.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import median
from typing import Final

from proxy.wire.snapshot import Ejection

INTERVAL: Final = 10.0
MIN_HOSTS: Final = 5
MIN_REQUESTS: Final = 100
STDEVS: Final = 1.9
MIN_GAP: Final = 0.05
FAILURE_SHARE: Final = 0.85
FAILURE_REQUESTS: Final = 50
WARY: Final = 0.3


class EndpointHealth:
    """What one worker knows of how an endpoint answers.

    `failure_ewma` is a moving share of failures, `ejection_count` how often it was ejected of
    late, `ejected_until`
    (monotonic seconds) when it may be probed, `probing` that a probe is on its way.
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
        """Whether so many recent answers failed that being quick must not count for it."""
        return self.failure_ewma > WARY

    def may_probe(self, now: float) -> bool:
        """Whether an ejected endpoint is to be given one request, to see if it recovered. The
        caller that does so sets `probing`."""
        return self.ejected and not self.probing and now >= self.ejected_until

    def record_success(self, seconds: float) -> bool:
        """Counts a good answer that took `success_seconds`; True when it re-admitted the
        endpoint."""
        self.successes += 1
        self.success_seconds += seconds
        self.consecutive = 0
        if self.failure_ewma:
            self.failure_ewma = self.failure_ewma * 0.8 if self.failure_ewma > 0.01 else 0.0
        if not self.ejected:
            return False
        if not self.probing:
            return False  # an answer to a request from before the ejection says little
        self.ejected = self.probing = False
        self.failure_ewma = 0.0
        return True

    def record_abandoned(self) -> None:
        """A request ended without an answer to judge by (the client left)."""
        self.probing = False


def record_failure(
    policy: Ejection, health: EndpointHealth, peers: Sequence[EndpointHealth], now: float
) -> str | None:
    """Counts a failure; the cause, when it ejects the endpoint. `peers` are all endpoints of
    the service, this one included."""
    health.failures += 1
    health.consecutive += 1
    health.failure_ewma += (1.0 - health.failure_ewma) * 0.2
    if health.ejected:
        if not health.probing:
            return None
        _eject(policy, health, now)
        return "the probing request failed"
    if policy.consecutive and health.consecutive >= policy.consecutive and may_eject(policy, peers):
        cause = f"{health.consecutive} failures in a row"
        _eject(policy, health, now)
        return cause
    return None


def eject_outliers(
    policy: Ejection, peers: Sequence[EndpointHealth], now: float
) -> list[tuple[EndpointHealth, str]]:
    """Judges the interval that ends now (call it each `INTERVAL` seconds): ejects those that
    lie apart, with the cause, and starts counting anew."""
    found: list[tuple[EndpointHealth, str]] = []
    causes = _outliers(policy, [health for health in peers if not health.ejected])
    for health, cause in causes:
        if may_eject(policy, peers):
            _eject(policy, health, now)
            found.append((health, cause))
    ejected = {id(health) for health, _ in found}
    for health in peers:
        health.successes = health.failures = 0
        health.success_seconds = 0.0
        health.failure_ewma *= 0.5
        if health.ejection_count and not health.ejected and id(health) not in ejected:
            health.ejection_count -= 1
    return found


def may_eject(policy: Ejection, peers: Sequence[EndpointHealth]) -> bool:
    """Whether one more endpoint may be out: the share allows it (always one), and it is not
    the last one in."""
    out = sum(health.ejected for health in peers)
    return out + 1 < len(peers) and out < max(1, int(policy.share * len(peers)))


def _eject(policy: Ejection, health: EndpointHealth, now: float) -> None:
    health.ejected = True
    health.probing = False
    health.consecutive = 0
    backoff = policy.base * 2.0 ** min(health.ejection_count, 30)
    health.ejected_until = now + min(policy.longest, backoff)
    health.ejection_count += 1


def _outliers(
    policy: Ejection, healths: Sequence[EndpointHealth]
) -> list[tuple[EndpointHealth, str]]:
    """The worst first, so that the share is spent on them."""
    found: list[tuple[float, EndpointHealth, str]] = []
    if policy.success_rate:
        found += _by_success(healths)
    if policy.latency_factor > 0.0:
        found += _by_latency(policy.latency_factor, healths)
    found.sort(key=lambda item: item[0])
    seen: dict[int, tuple[EndpointHealth, str]] = {}
    for _, health, cause in found:
        seen.setdefault(id(health), (health, cause))
    return list(seen.values())


def _by_success(healths: Sequence[EndpointHealth]) -> list[tuple[float, EndpointHealth, str]]:
    """Envoy's success rate rule where enough endpoints got enough requests, else its failure
    percentage rule, if the others do better than it: nobody is an outlier when all fail."""
    counted = [
        (h, h.successes / (h.successes + h.failures))
        for h in healths
        if h.successes + h.failures >= FAILURE_REQUESTS
    ]
    many = [(h, rate) for h, rate in counted if h.successes + h.failures >= MIN_REQUESTS]
    found = []
    if len(many) >= MIN_HOSTS:
        mean = sum(rate for _, rate in many) / len(many)
        stdev = sqrt(sum((rate - mean) ** 2 for _, rate in many) / len(many))
        # Without a least gap, 99 % among hosts at 100 % would count as an outlier.
        border = min(mean - STDEVS * stdev, mean - MIN_GAP)
        for health, rate in many:
            if rate < border:
                cause = f"success rate {rate:.0%} where the mean is {mean:.0%}"
                found.append((rate, health, cause))
    for health, rate in counted:
        others = [other for peer, other in counted if peer is not health]
        if rate <= 1.0 - FAILURE_SHARE and others and sum(others) / len(others) >= 0.5:
            found.append((rate, health, f"{1.0 - rate:.0%} of its answers failed"))
    return found


def _by_latency(
    factor: float, healths: Sequence[EndpointHealth]
) -> list[tuple[float, EndpointHealth, str]]:
    counted = [(h, h.success_seconds / h.successes) for h in healths if h.successes >= MIN_REQUESTS]
    found = []
    for health, mean in counted:
        others = [other for peer, other in counted if peer is not health]
        if len(others) >= 2 and mean > factor * median(others):
            cause = (
                f"mean latency {mean * 1e3:.0f} ms, {mean / median(others):.1f} times its peers'"
            )
            found.append((1.0 + median(others) / mean, health, cause))
    return found
