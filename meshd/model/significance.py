"""Two revisions compared by what they served in the same seconds: an exact test. Pure.

Every second is a stratum of its own. Given how many requests of it were bad (failed, or slow),
and that each request goes to either revision by lot, the number of bad ones that fall to the
new revision is hypergeometric if the two are alike. The sum over all seconds is compared with
what was seen, one-sided. Stratified so, an overload of both, or a share that grows on the way,
says nothing against either (the exact form of the Cochran-Mantel-Haenszel test).

Where requests do not go by lot but by what they carry, those of the new revision may be other than
the rest. If their odds of being bad are up to `odds` times those of the rest whoever serves them,
the number is at worst distributed as Fisher's noncentral hypergeometric distribution has it; the
test is then held against that (the sensitivity analysis of Rosenbaum, Observational Studies, 2002).
"""

from math import erfc, exp, lgamma, log, sqrt
from typing import Final

import msgspec

NORMAL_FROM: Final = 25.0
"""The variance from which on the normal approximation takes the exact distribution's place."""

_Chances = tuple[int, tuple[float, ...]]
_NONE_BAD: Final[_Chances] = (0, (1.0,))
_TOO_MANY: Final[_Chances] = (0, ())


class Comparison(msgspec.Struct, frozen=True):
    """Bad ones among all, of the new revision and of the old, summed up over strata.

    `strata` counts those in which the new one had a bad one. `chances[i]` is the probability
    that `low + i` bad ones fall to the new revision if the two are alike.
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
        """With one more stratum. One in which only one of the two served counts for nothing."""
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
        grown = self.variance + variance
        low, chances = _TOO_MANY
        if self.chances and grown < NORMAL_FROM:
            low, chances = self.low + first, _convolved(self.chances, more)
        return Comparison(
            new=self.new + new,
            new_bad=self.new_bad + new_bad,
            old=self.old + old,
            old_bad=self.old_bad + old_bad,
            strata=self.strata + bool(new_bad),
            expected=self.expected + expected,
            variance=grown,
            low=low,
            chances=chances,
        )

    @property
    def p(self) -> float:
        """The chance of seeing at least so many bad ones of the new revision if it were no
        worse than the old one."""
        if self.chances:
            return min(1.0, sum(self.chances[max(0, self.new_bad - self.low) :]))
        # With the usual correction of half a one for taking counts as continuous.
        z = (self.new_bad - 0.5 - self.expected) / sqrt(self.variance)
        return 0.5 * erfc(z / sqrt(2.0))

    @property
    def new_share(self) -> float:
        """Bad ones of the new revision's requests, 0..1."""
        return self.new_bad / self.new if self.new else 0.0

    @property
    def old_share(self) -> float:
        """Bad ones of the old revision's requests, 0..1."""
        return self.old_bad / self.old if self.old else 0.0


def hypergeometric(new: int, old: int, bad: int, odds: float = 1.0) -> _Chances:
    """The least number of `bad` ones that can fall among `new` of `new + old` requests, and
    the chances of that number and of each above it, where those among `new` have so many times
    the odds."""
    low, high = max(0, bad - old), min(bad, new)
    logs = [
        _ways(new, count) + _ways(old, bad - count) + count * log(odds)
        for count in range(low, high + 1)
    ]
    most = max(logs)
    weights = [exp(each - most) for each in logs]
    whole = sum(weights)
    return low, tuple(weight / whole for weight in weights)


def binomial(bad: int, of: int, share: float) -> float:
    """The chance of at least so many bad ones of so many, if each is bad with that chance, which
    is neither 0 nor 1."""
    odds = (log(share), log(1.0 - share))
    return min(1.0, sum(
        exp(_ways(of, count) + count * odds[0] + (of - count) * odds[1])
        for count in range(bad, of + 1)
    ))  # fmt: skip


def _ways(of: int, take: int) -> float:
    """The logarithm of how many ways there are to take so many."""
    return lgamma(of + 1) - lgamma(take + 1) - lgamma(of - take + 1)


def _convolved(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """The distribution of the sum of two independent numbers."""
    found = [0.0] * (len(one) + len(other) - 1)
    for i, chance in enumerate(one):
        for j, more in enumerate(other):
            found[i + j] += chance * more
    return tuple(found)
