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

    `trouble` is a moving share of failures, `times` how often it was ejected of late, `until`
    (monotonic seconds) when it may be probed, `probing` that a probe is on its way.
    """

    __slots__ = (
        "bad",
        "consecutive",
        "ejected",
        "id",
        "ok",
        "probing",
        "seconds",
        "times",
        "trouble",
        "until",
    )

    def __init__(self, id: str) -> None:
        self.id = id
        self.consecutive = 0
        self.ok = 0
        self.bad = 0
        self.seconds = 0.0
        self.trouble = 0.0
        self.ejected = False
        self.until = 0.0
        self.times = 0
        self.probing = False

    @property
    def fast_failing(self) -> bool:
        """Whether so many recent answers failed that being quick must not count for it."""
        return self.trouble > WARY

    def may_probe(self, now: float) -> bool:
        """Whether an ejected endpoint is to be given one request, to see if it recovered. The
        caller that does so sets `probing`."""
        return self.ejected and not self.probing and now >= self.until

    def succeeded(self, seconds: float) -> bool:
        """Counts a good answer that took `seconds`; True when it re-admitted the endpoint."""
        self.ok += 1
        self.seconds += seconds
        self.consecutive = 0
        if self.trouble:
            self.trouble = self.trouble * 0.8 if self.trouble > 0.01 else 0.0
        if not self.ejected:
            return False
        if not self.probing:
            return False  # an answer to a request from before the ejection says little
        self.ejected = self.probing = False
        self.trouble = 0.0
        return True

    def abandoned(self) -> None:
        """A request ended without an answer to judge by (the client left)."""
        self.probing = False


def after_failure(
    policy: Ejection, health: EndpointHealth, peers: Sequence[EndpointHealth], now: float
) -> str | None:
    """Counts a failure; the cause, when it ejects the endpoint. `peers` are all endpoints of
    the service, this one included."""
    health.bad += 1
    health.consecutive += 1
    health.trouble += (1.0 - health.trouble) * 0.2
    if health.ejected:
        if not health.probing:
            return None
        _eject(policy, health, now)
        return "the probing request failed"
    if policy.consecutive and health.consecutive >= policy.consecutive and room(policy, peers):
        cause = f"{health.consecutive} failures in a row"
        _eject(policy, health, now)
        return cause
    return None


def sweep(
    policy: Ejection, peers: Sequence[EndpointHealth], now: float
) -> list[tuple[EndpointHealth, str]]:
    """Judges the interval that ends now (call it each `INTERVAL` seconds): ejects those that
    lie apart, with the cause, and starts counting anew."""
    found: list[tuple[EndpointHealth, str]] = []
    causes = _outliers(policy, [health for health in peers if not health.ejected])
    for health, cause in causes:
        if room(policy, peers):
            _eject(policy, health, now)
            found.append((health, cause))
    ejected = {id(health) for health, _ in found}
    for health in peers:
        health.ok = health.bad = 0
        health.seconds = 0.0
        health.trouble *= 0.5
        if health.times and not health.ejected and id(health) not in ejected:
            health.times -= 1
    return found


def room(policy: Ejection, peers: Sequence[EndpointHealth]) -> bool:
    """Whether one more endpoint may be out: the share allows it (always one), and it is not
    the last one in."""
    out = sum(health.ejected for health in peers)
    return out + 1 < len(peers) and out < max(1, int(policy.share * len(peers)))


def _eject(policy: Ejection, health: EndpointHealth, now: float) -> None:
    health.ejected = True
    health.probing = False
    health.consecutive = 0
    backoff = policy.base * 2.0 ** min(health.times, 30)
    health.until = now + min(policy.longest, backoff)
    health.times += 1


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
    counted = [(h, h.ok / (h.ok + h.bad)) for h in healths if h.ok + h.bad >= FAILURE_REQUESTS]
    many = [(h, rate) for h, rate in counted if h.ok + h.bad >= MIN_REQUESTS]
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
    counted = [(h, h.seconds / h.ok) for h in healths if h.ok >= MIN_REQUESTS]
    found = []
    for health, mean in counted:
        others = [other for peer, other in counted if peer is not health]
        if len(others) >= 2 and mean > factor * median(others):
            cause = (
                f"mean latency {mean * 1e3:.0f} ms, {mean / median(others):.1f} times its peers'"
            )
            found.append((1.0 + median(others) / mean, health, cause))
    return found
