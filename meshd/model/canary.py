"""Values of canary analyses: what one revision served, an analysis, and its result. Pure.

`meshd.reconcile.rollout.canary_analysis` computes them, and `meshd.store.canary_analyses` stores
`CanaryAnalysis`. The stored field names are those before a rename (`name=`).

`Comparison` is an exact test that compares two revisions by the requests they served in the same
seconds. Each second is one stratum. Given the number of
bad (failed or slow) requests in a second, and random routing, the number of bad requests that the
new revision got is hypergeometric if both revisions are equal. The test compares the sum over all
seconds with the observed sum, one-sided: the exact form of the Cochran-Mantel-Haenszel test. The
strata make it robust: an overload of both revisions, or a share that grows, counts against neither.

Requests that are routed by a match, not at random, may differ from the rest. If their odds of being
bad are up to `odds` times those of the rest, whichever revision serves them, then the number is at
worst distributed as Fisher's noncentral hypergeometric distribution. The test uses that one then
(sensitivity analysis; Rosenbaum, Observational Studies, 2002).
"""

from collections.abc import Mapping
from enum import Enum
from math import erfc, exp, lgamma, log, sqrt
from typing import Final

import msgspec

NORMAL_FROM: Final = 25.0
"""Variance from which the normal approximation replaces the exact distribution."""

MIN_SECONDS: Final = 5
"""Seconds from which a dispersion is known: with fewer, equal shares often vary by chance."""

_Distribution = tuple[int, tuple[float, ...]]
"""The least possible number, and the probabilities of that number and of each above it."""
_NONE_BAD: Final[_Distribution] = (0, (1.0,))
_APPROXIMATED: Final[_Distribution] = (0, ())


class Comparison(msgspec.Struct, frozen=True):
    """Bad requests of two revisions, summed over strata.

    - `new`, `new_bad`, `old`, `old_bad`: numbers of requests of each revision.
    - `strata`: seconds in which the new revision had a bad request.
    - `expected`, `variance`: of `new_bad`, if both revisions are equal.
    - `low`, `chances`: `chances[i]` is P(new_bad = low + i) if both are equal; empty once the
      normal approximation is used.
    """

    new: int = 0
    new_bad: int = 0
    old: int = 0
    old_bad: int = 0
    strata: int = 0
    expected: float = 0.0
    variance: float = 0.0
    low: int = 0
    chances: tuple[float, ...] = (1.0,)

    def add(
        self, new: int, new_bad: int, old: int, old_bad: int, odds: float = 1.0
    ) -> "Comparison":
        """Return the comparison with one more stratum.

        A stratum in which only one revision served changes nothing.
        """
        if new <= 0 or old <= 0:
            return self
        total, bad = new + old, new_bad + old_bad
        share = new / total
        expected = bad * share
        variance = expected * (1 - share) * (total - bad) / (total - 1)
        first, more = _NONE_BAD
        if bad and (odds != 1.0 or self.chances):
            first, more = hypergeometric(new, old, bad, odds)
        if odds != 1.0:
            expected = sum((first + i) * chance for i, chance in enumerate(more))
            variance = sum((first + i - expected) ** 2 * chance for i, chance in enumerate(more))
        total_variance = self.variance + variance
        low, chances = _APPROXIMATED
        if self.chances and total_variance < NORMAL_FROM:
            low, chances = self.low + first, _convolve(self.chances, more)
        return Comparison(
            new=self.new + new,
            new_bad=self.new_bad + new_bad,
            old=self.old + old,
            old_bad=self.old_bad + old_bad,
            strata=self.strata + bool(new_bad),
            expected=self.expected + expected,
            variance=total_variance,
            low=low,
            chances=chances,
        )

    @property
    def p(self) -> float:
        """P(the new revision has at least `new_bad` bad requests) if it is not worse."""
        if self.chances:
            return min(1.0, sum(self.chances[max(0, self.new_bad - self.low) :]))
        # Continuity correction of 0.5: a count is approximated by a continuous distribution.
        z = (self.new_bad - 0.5 - self.expected) / sqrt(self.variance)
        return 0.5 * erfc(z / sqrt(2.0))

    def p_with_noise(self, dispersion: float) -> float:
        """The same probability if the numbers of bad requests vary `dispersion` times as much as
        with independent requests (quasi-likelihood; McCullagh and Nelder, Generalized Linear
        Models, 1989), by the normal approximation."""
        if self.variance <= 0.0:
            return 1.0
        z = (self.new_bad - 0.5 - self.expected) / sqrt(self.variance * max(1.0, dispersion))
        return 0.5 * erfc(z / sqrt(2.0))

    @property
    def new_share(self) -> float:
        """Share of bad requests of the new revision, 0..1."""
        return self.new_bad / self.new if self.new else 0.0

    @property
    def old_share(self) -> float:
        """Share of bad requests of the old revision, 0..1."""
        return self.old_bad / self.old if self.old else 0.0


class Dispersion(msgspec.Struct, frozen=True):
    """How much a share varies from second to second, compared with chance.

    - `seconds`: seconds with requests; `requests`, `bad`: their sums.
    - `squares`: sum over the seconds of the squared number of bad requests, divided by the number
      of requests.
    """

    seconds: int = 0
    requests: int = 0
    bad: int = 0
    squares: float = 0.0

    def add(self, requests: int, bad: int) -> "Dispersion":
        """Return the value with one more second."""
        if requests <= 0:
            return self
        return Dispersion(
            seconds=self.seconds + 1,
            requests=self.requests + requests,
            bad=self.bad + bad,
            squares=self.squares + bad * bad / requests,
        )

    @property
    def index(self) -> float:
        """Pearson's chi-square per degree of freedom: about 1 if requests are bad independently,
        above it if something makes many requests of one second bad together."""
        if self.seconds < MIN_SECONDS or not 0 < self.bad < self.requests:
            return 1.0
        share = self.bad / self.requests
        spread = self.squares - share * self.bad
        return spread / (share * (1.0 - share)) / (self.seconds - 1)

    def exceeds_chance(self, deviations: float) -> bool:
        """Return whether `index` is that many standard deviations above 1."""
        return self.index > 1.0 + deviations * sqrt(2.0 / max(1, self.seconds - 1))


def hypergeometric(new: int, old: int, bad: int, odds: float = 1.0) -> _Distribution:
    """Return the distribution of the `bad` requests among `new` of `new + old` requests.

    `odds` is how much higher the odds of a bad request are among `new`.
    """
    low, high = max(0, bad - old), min(bad, new)
    logs = [
        _log_combinations(new, count) + _log_combinations(old, bad - count) + count * log(odds)
        for count in range(low, high + 1)
    ]
    most = max(logs)
    weights = [exp(each - most) for each in logs]
    total = sum(weights)
    return low, tuple(weight / total for weight in weights)


def binomial(bad: int, n: int, p: float) -> float:
    """P(X >= bad) for X ~ Binomial(n, p), 0 < p < 1."""
    log_p, log_q = log(p), log(1.0 - p)
    return min(1.0, sum(
        exp(_log_combinations(n, count) + count * log_p + (n - count) * log_q)
        for count in range(bad, n + 1)
    ))  # fmt: skip


def _log_combinations(n: int, k: int) -> float:
    """The natural logarithm of "n choose k"."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _convolve(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """The distribution of the sum of two independent numbers."""
    found = [0.0] * (len(one) + len(other) - 1)
    for i, chance in enumerate(one):
        for j, more in enumerate(other):
            found[i + j] += chance * more
    return tuple(found)


class CanaryDecision(Enum):
    """What an analysis decides for the current stage."""

    WAIT = "wait"
    """Wait for more requests."""
    PASS = "pass"  # noqa: S105
    """The new revision may go to the next stage."""
    FAIL = "fail"
    """The new revision is worse than the previous one."""


class RevisionSample(msgspec.Struct, frozen=True):
    """What one revision served in some time.

    - `requests`, `failed`: numbers of requests.
    - `latency`: requests by latency bucket, without those of replicas that warm up.
    - `ejected`: whether the proxy ejected one of its replicas.
    """

    requests: int = 0
    failed: int = 0
    latency: Mapping[int, int] = {}
    ejected: bool = False


class CanaryAnalysis(msgspec.Struct, frozen=True):
    """The evidence about a new revision so far. Times are Unix times in seconds.

    - `since`: when the analysis began.
    - `stage`: the current stage; `stage_since`: when it began; `stage_requests`: requests that
      the new revision had served by then; `stages`: number of stages begun.
    - `last_second`: start of the last second that was added.
    - `failures`, `slow`: comparisons of failed and of slow requests; `looks`: how often each
      comparison was tested.
    - `quick`: comparison of the requests above the same multiple of the latency of the previous
      revision's quickest quarter; `noise`: how much the share of that revision above it varies
      between seconds.
    - `baseline_latency`: the previous revision's requests by latency bucket.
    - `traffic_step`: index of the new revision's traffic share in `TRAFFIC_STEPS`;
      `step_since`, `step_requests`: as for the stage.
    - `ejected`: whether the proxy ejected a replica of the new revision only.
    - `alarm`: the evidence that the new revision is worse; empty: none.
    - `baseline`: what the previous revision served before a blue/green switch; None: both
      revisions serve at the same time.
    - `odds`: how much higher the odds of a bad request may be for the requests that the new
      revision gets, whichever revision serves them. See `Comparison`.
    """

    since: float
    stage: int
    stage_since: float
    stage_requests: int = 0
    last_second: float = msgspec.field(default=0.0, name="seen")
    failures: Comparison = Comparison()
    slow: Comparison = Comparison()
    baseline_latency: Mapping[int, int] = msgspec.field(default={}, name="usual")
    traffic_step: int = msgspec.field(default=0, name="rung")
    step_since: float = msgspec.field(default=0.0, name="rung_since")
    step_requests: int = msgspec.field(default=0, name="rung_requests")
    looks: tuple[int, int] = (0, 0)
    stages: int = 1
    ejected: bool = False
    alarm: str = ""
    baseline: RevisionSample | None = msgspec.field(default=None, name="before")
    odds: float = 1.0
    quick: Comparison = Comparison()
    noise: Dispersion = Dispersion()


class AnalysisResult(msgspec.Struct, frozen=True):
    """The result of an analysis for one stage.

    - `stage`: the stage it is about.
    - `reason`: the evidence, for people.
    - `max_share`: share of the traffic that the new revision may get now (0..1).
    """

    stage: int
    decision: CanaryDecision
    reason: str
    max_share: float = 1.0
