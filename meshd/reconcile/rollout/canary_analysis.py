"""Whether a new revision is let on: judged by its own traffic beside the old one's. Pure.

Two comparisons (see `evidence`): of requests that failed, and of requests that took more than
`slower` times the old revision's p95. Each asks, after every bad request more, how likely so
many would be were the new revision no worse; that it is asked again and again is paid for by
ever smaller borders, whose sum is the chance of a false alarm: look number i of one comparison
may use 1 / (i (i + 1)) of its part of it, and so may the last look at each stage. So `confidence`
holds for a whole rollout. Slower is only what is so by its own p95 too.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult, CanaryAnalysis, Counts, Word
from meshd.model.significance import Comparison, binomial
from meshd.spec.model import CanaryAnalysisSettings
from proxy.wire import buckets

RUNGS: Final = (0.02, 0.05, 0.1, 0.25)
"""The shares of the traffic that a new revision gets one after the other while it is tried, up
to what its replicas are of all."""
RUNG_REQUESTS: Final = 20
RUNG_SECONDS: Final = 3.0
SUSPICIOUS: Final = 0.1
"""Odds against mere chance at which the new revision gets no more, and is not let on yet."""
LEAST: Final = 10
"""Requests under which nothing is said of latency, and traffic counts as too thin."""
SECONDS_SLOW: Final = 3
SECONDS_FAILED: Final = 2
"""Seconds in which bad ones must have been seen: a single hiccup makes many at once."""
EJECTED_FAILURES: Final = 5
UNLIKE: Final = 5.0
"""So many times the odds of failing, or of taking long, requests may have by themselves that go to
the new revision by what they carry, and not by lot."""
REFERENCE: Final = 0.95


NOT_YET: Final = AnalysisResult(stage=-1, word="wait", text="not tried yet", rung=RUNGS[0])


def began(
    stage: int,
    now: float,
    usual: Mapping[int, int],
    before: Counts | None = None,
    by_lot: bool = True,
) -> CanaryAnalysis:
    """A trial that starts now; `usual` are latencies of the old revision of just before. `by_lot`:
    no request goes to the new one by what it carries."""
    return CanaryAnalysis(
        since=now,
        stage=stage,
        stage_since=now,
        rung_since=now,
        usual=usual,
        before=before,
        odds=1.0 if by_lot else UNLIKE,
    )


def staged(trial: CanaryAnalysis, stage: int, now: float) -> CanaryAnalysis:
    """The same trial in the next stage: what is known stays known."""
    return msgspec.structs.replace(
        trial,
        stage=stage,
        stage_since=now,
        stage_requests=trial.failures.new,
        stages=trial.stages + 1,
    )


def take(
    trial: CanaryAnalysis, gate: CanaryAnalysisSettings, at: float, new: Counts, old: Counts
) -> CanaryAnalysis:
    """With one more second, that began at `at`."""
    usual = dict(trial.usual)
    for bucket, count in old.latency.items():
        usual[bucket] = usual.get(bucket, 0) + count
    border = _border(usual, gate)
    before = trial.before
    failures, slow = trial.failures, trial.slow
    if before is not None:
        # The old one serves no more: all of the new one's against what it did before.
        failures = Comparison().add(
            failures.new + new.requests, failures.new_bad + new.failed,
            before.requests, before.failed,
        )  # fmt: skip
        slow = Comparison().add(
            slow.new + sum(new.latency.values()), slow.new_bad + _over(new.latency, border),
            sum(before.latency.values()), _over(before.latency, border),
        )  # fmt: skip
        failures = msgspec.structs.replace(
            failures, strata=trial.failures.strata + bool(new.failed)
        )
        more = bool(_over(new.latency, border))
        slow = msgspec.structs.replace(slow, strata=trial.slow.strata + more)
    else:
        failures = failures.add(new.requests, new.failed, old.requests, old.failed, trial.odds)
        slow = slow.add(
            sum(new.latency.values()), _over(new.latency, border),
            sum(old.latency.values()), _over(old.latency, border), trial.odds,
        )  # fmt: skip
    trial = msgspec.structs.replace(
        trial,
        seen=at,
        usual=usual,
        failures=failures,
        slow=slow,
        looks=(
            trial.looks[0] + (failures.new_bad > trial.failures.new_bad),
            trial.looks[1] + (slow.new_bad > trial.slow.new_bad),
        ),
        ejected=trial.ejected or (new.ejected and not old.ejected),
    )
    trial = msgspec.structs.replace(trial, alarm=trial.alarm or _alarm(trial, gate, border))
    return _climb(trial, gate, at + 1.0)


def _border(usual: Mapping[int, int], gate: CanaryAnalysisSettings) -> float:
    """Seconds from which on a request counts as slow."""
    return (buckets.quantile(usual, REFERENCE) or 0.0) * gate.slower


def _over(latency: Mapping[int, int], border: float) -> int:
    last = buckets.index(border)
    return sum(count for bucket, count in latency.items() if bucket > last)


def _alarm(trial: CanaryAnalysis, gate: CanaryAnalysisSettings, border: float) -> str:
    """The evidence that it is worse; empty while there is none."""
    chance = (1.0 - gate.confidence) / 4  # half for the looks on the way, half of it for each
    failures, slow = trial.failures, trial.slow
    first, second = (chance / (i * (i + 1)) if i else 0.0 for i in trial.looks)
    if failures.strata >= SECONDS_FAILED and failures.p <= first:
        return _failed(failures, trial)
    if slow.p <= second and _slower(slow, gate):
        return _slow(slow, trial, border)
    many = failures.new_bad >= EJECTED_FAILURES and failures.p <= 1.0 - gate.confidence
    if trial.ejected and many:
        return f"the proxy took a replica of it out of rotation; {_failed(failures, trial)}"
    return ""


def _slower(slow: Comparison, gate: CanaryAnalysisSettings) -> bool:
    """Whether there is enough to call it slower, and it is so by its own p95 too. Where fewer are
    slow than that leaves out, it is mostly a busy machine's doing: that holds up one replica for a
    moment with all that it has, and not requests by lot as the comparison has it."""
    if slow.strata < SECONDS_SLOW or slow.new < LEAST:
        return False
    return binomial(slow.new_bad, slow.new, 1.0 - REFERENCE) <= 1.0 - gate.confidence


def _climb(trial: CanaryAnalysis, gate: CanaryAnalysisSettings, now: float) -> CanaryAnalysis:
    """Its share grows with the trust in it."""
    served = trial.failures.new - trial.rung_requests
    waited = now - trial.rung_since
    enough = served >= RUNG_REQUESTS or waited >= RUNG_SECONDS
    warm = now >= trial.since + gate.warm
    if trial.rung >= len(RUNGS) or not enough or not warm or suspicious(trial):
        return trial
    return msgspec.structs.replace(
        trial, rung=trial.rung + 1, rung_since=now, rung_requests=trial.failures.new
    )


def suspicious(trial: CanaryAnalysis) -> bool:
    """Whether it looks worse, though it may be chance."""
    slow = trial.slow.new_share > 1.0 - REFERENCE and trial.slow.p <= SUSPICIOUS
    return slow or (trial.failures.strata > 0 and trial.failures.p <= SUSPICIOUS)


def verdict(
    trial: CanaryAnalysis,
    gate: CanaryAnalysisSettings,
    rate: float | None,
    share: float,
    monitor: float,
    now: float,
) -> AnalysisResult:
    """What is to be done. `rate` is the service's requests a second of late (None: not known
    yet), `share` the part of them that the new revision can get. Where traffic is too thin to
    tell, the stage is watched for `monitor` seconds, and not at all where there is none."""
    word, text = _word(trial, gate, rate, share, monitor, now)
    rung = RUNGS[trial.rung] if trial.rung < len(RUNGS) else 1.0
    return AnalysisResult(stage=trial.stage, word=word, text=text, rung=rung)


def onward(trial: CanaryAnalysis) -> AnalysisResult:
    """What follows once all stages are passed: nothing waits for more, and only what is proved on
    the way turns it back. There is no last look, as there would be one every second."""
    if trial.alarm:
        return AnalysisResult(stage=trial.stage, word="worse", text=trial.alarm)
    return AnalysisResult(stage=trial.stage, word="fine", text=f"no worse in {_counted(trial)}")


def _word(
    trial: CanaryAnalysis,
    gate: CanaryAnalysisSettings,
    rate: float | None,
    share: float,
    monitor: float,
    now: float,
) -> tuple[Word, str]:
    if trial.alarm:
        return "worse", trial.alarm
    served = trial.failures.new - trial.stage_requests
    waited = now - trial.stage_since
    doubt = suspicious(trial)
    if served >= gate.requests and not doubt:
        return "fine", f"no worse in {_counted(trial)}"
    thin = rate is not None and rate * share * gate.wait < LEAST
    if thin and not doubt and waited >= (monitor if rate else 0.0):
        return "fine", f"too little traffic to tell ({rate:.2g} requests/s)"
    if waited < gate.wait:
        return "wait", f"tried on {served} of {gate.requests} requests"
    last = (1.0 - gate.confidence) / 4 / (trial.stages * (trial.stages + 1))
    if trial.failures.p <= last and trial.failures.strata >= SECONDS_FAILED:
        return "worse", _failed(trial.failures, trial)
    if trial.slow.p <= last and _slower(trial.slow, gate):
        return "worse", _slow(trial.slow, trial, _border(trial.usual, gate))
    return "fine", f"not proved worse in {_counted(trial)} and {gate.wait:g} s"


def _counted(trial: CanaryAnalysis) -> str:
    return f"{trial.failures.new} requests, {trial.failures.new_bad} failed"


def _failed(found: Comparison, trial: CanaryAnalysis) -> str:
    return (
        f"{found.new_share:.2%} of its requests failed ({found.new_bad} of {found.new}), "
        f"{found.old_share:.2%} of the old revision's ({found.old_bad} of {found.old}) "
        f"{_when(trial)}; {_chance(found, trial)}"
    )


def _slow(found: Comparison, trial: CanaryAnalysis, border: float) -> str:
    return (
        f"{found.new_share:.1%} of its requests took over {border * 1000:.3g} ms "
        f"({found.new_bad} of {found.new}), {found.old_share:.1%} of the old revision's "
        f"({found.old_bad} of {found.old}) {_when(trial)}; {_chance(found, trial)}"
    )


def _when(trial: CanaryAnalysis) -> str:
    return "in the same seconds" if trial.before is None else "before the switch"


def _chance(found: Comparison, trial: CanaryAnalysis) -> str:
    unlike = f" and {trial.odds:g} times the odds" if trial.odds != 1.0 else ""
    return f"by chance alone{unlike}: p = {max(found.p, 1e-300):.1g}"
