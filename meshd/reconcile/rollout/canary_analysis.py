"""Canary analysis: decide by traffic whether a new revision is worse than the previous one. Pure.

`analysis_feed` adds one second of traffic at a time and asks for a decision. Two comparisons (see
`meshd.model.canary`) are made: failed requests, and requests that took longer than `slower`
times the previous revision's p95 (and at least `LEAST_DIFFERENCE` longer).

Each comparison is tested after every bad request ("look"), so its significance level is divided
among the looks (alpha spending): look number i may use 1 / (i (i + 1)) of the level, and these
parts add up to less than 1. So may the final look of each stage. `confidence` therefore holds for
the whole rollout. A revision only counts as slower if its own p95 is too high as well.

On a crowded machine something makes many requests of one second slow together ("noise"). It raises
the previous revision's p95, so that `slower` times as much is seldom exceeded. While the quickest
requests of the new revision look slower than those of the previous one, the stage waits longer than
`wait`, and its final look compares them.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.model.canary import (
    AnalysisResult,
    CanaryAnalysis,
    CanaryDecision,
    Comparison,
    Dispersion,
    RevisionSample,
    binomial,
)
from meshd.spec.model import CanaryAnalysisSettings
from proxy.wire import buckets

TRAFFIC_STEPS: Final = (0.02, 0.05, 0.1, 0.25)
"""Shares of the traffic that a new revision gets in turn; then the share of its replicas."""
STEP_REQUESTS: Final = 20
"""Requests of the new revision after which the share grows. One bad request in 20 shows up."""
STEP_SECONDS: Final = 3.0
"""Seconds after which the share grows, even with fewer requests."""
SUSPICIOUS_P: Final = 0.1
"""p-value at which the share stops growing and the stage does not end before `wait`."""
MIN_REQUESTS: Final = 10
"""Requests that latency is compared from. If fewer are expected, traffic is too low to analyze."""
SLOW_SECONDS: Final = 3
"""Seconds with slow requests that a failure needs: one hiccup makes many requests slow at once."""
FAILED_SECONDS: Final = 2
"""Seconds with failed requests that a failure needs, for the same reason."""
EJECTED_FAILURES: Final = 5
"""Failed requests that confirm an ejection by the proxy: the default of its `eject.consecutive`."""
MATCHED_ODDS: Final = 5.0
"""Bound on how much higher the odds of a bad request are among requests selected by `match`."""
REFERENCE: Final = 0.95
"""Quantile of the previous revision's latency that defines "slow"."""
QUICK: Final = 0.25
"""Quantile that is compared where the machine is noisy. Noise only ever adds to a latency, so it
changes that of the quickest quarter least."""
LEAST_DIFFERENCE: Final = 0.005
"""Seconds by which a request must be slower to count as slow. Where a replica runs makes that
difference, for instance on another node than those of the previous revision: a round trip, and a
new connection with encryption."""
NOISE_DEVIATIONS: Final = 3.0
"""Standard deviations above 1 from which a dispersion is noise, and not chance."""
NOISY_WAIT: Final = 2.0
"""Factor on `wait` while the machine is too noisy to analyze: twice the evidence."""


NOT_STARTED: Final = AnalysisResult(
    stage=-1,
    decision=CanaryDecision.WAIT,
    reason="no requests analyzed yet",
    max_share=TRAFFIC_STEPS[0],
)


def begin_analysis(
    stage: int,
    now: float,
    baseline_latency: Mapping[int, int],
    baseline: RevisionSample | None = None,
    random_routing: bool = True,
) -> CanaryAnalysis:
    """Return an analysis that begins now.

    `baseline_latency` are recent requests of the previous revision by latency bucket. Requests
    reach the new revision at random (`random_routing`) or by a match.
    """
    return CanaryAnalysis(
        since=now,
        stage=stage,
        stage_since=now,
        step_since=now,
        baseline_latency=baseline_latency,
        baseline=baseline,
        odds=1.0 if random_routing else MATCHED_ODDS,
    )


def begin_stage(analysis: CanaryAnalysis, stage: int, now: float) -> CanaryAnalysis:
    """Return the analysis in another stage, with all evidence so far."""
    return msgspec.structs.replace(
        analysis,
        stage=stage,
        stage_since=now,
        stage_requests=analysis.failures.new,
        stages=analysis.stages + 1,
    )


def add_second(
    analysis: CanaryAnalysis,
    settings: CanaryAnalysisSettings,
    at: float,
    new: RevisionSample,
    old: RevisionSample,
) -> CanaryAnalysis:
    """Return the analysis with the second that began at `at`."""
    latency = dict(analysis.baseline_latency)
    for bucket, count in old.latency.items():
        latency[bucket] = latency.get(bucket, 0) + count
    slow_from = _slow_from(latency, settings)
    failures, slow = _compare(analysis, new, old, slow_from)
    quick, noise = _compare_quick(analysis, new, old, _slow_from(latency, settings, QUICK))
    analysis = msgspec.structs.replace(
        analysis,
        last_second=at,
        baseline_latency=latency,
        failures=failures,
        slow=slow,
        quick=quick,
        noise=noise,
        looks=(
            analysis.looks[0] + (failures.new_bad > analysis.failures.new_bad),
            analysis.looks[1] + (slow.new_bad > analysis.slow.new_bad),
        ),
        ejected=analysis.ejected or (new.ejected and not old.ejected),
    )
    alarm = analysis.alarm or _alarm(analysis, settings, slow_from)
    analysis = msgspec.structs.replace(analysis, alarm=alarm)
    return _grow_share(analysis, settings, at + 1.0)


def _compare(
    analysis: CanaryAnalysis, new: RevisionSample, old: RevisionSample, slow_from: float
) -> tuple[Comparison, Comparison]:
    """Both comparisons with one more second: of failed and of slow requests."""
    failures, slow, baseline = analysis.failures, analysis.slow, analysis.baseline
    timed, too_slow = sum(new.latency.values()), _count_above(new.latency, slow_from)
    if baseline is None:
        failures = failures.add(new.requests, new.failed, old.requests, old.failed, analysis.odds)
        slow = slow.add(
            timed, too_slow,
            sum(old.latency.values()), _count_above(old.latency, slow_from), analysis.odds,
        )  # fmt: skip
        return failures, slow
    # The previous revision does not serve any more. All requests of the new one are compared, as
    # one stratum, with what the previous one served before the switch.
    failures = Comparison().add(
        failures.new + new.requests, failures.new_bad + new.failed,
        baseline.requests, baseline.failed,
    )  # fmt: skip
    slow = Comparison().add(
        slow.new + timed, slow.new_bad + too_slow,
        sum(baseline.latency.values()), _count_above(baseline.latency, slow_from),
    )  # fmt: skip
    failed_seconds = analysis.failures.strata + bool(new.failed)
    slow_seconds = analysis.slow.strata + bool(too_slow)
    return (
        msgspec.structs.replace(failures, strata=failed_seconds),
        msgspec.structs.replace(slow, strata=slow_seconds),
    )


def _slow_from(
    latency: Mapping[int, int], settings: CanaryAnalysisSettings, quantile: float = REFERENCE
) -> float:
    """The latency in seconds from which a request counts as slow."""
    usual = buckets.quantile(latency, quantile) or 0.0
    return max(usual * settings.slower, usual + LEAST_DIFFERENCE)


def _count_above(latency: Mapping[int, int], limit: float) -> int:
    """The number of requests above a latency in seconds."""
    last = buckets.index(limit)
    return sum(count for bucket, count in latency.items() if bucket > last)


def _compare_quick(
    analysis: CanaryAnalysis, new: RevisionSample, old: RevisionSample, limit: float
) -> tuple[Comparison, Dispersion]:
    """The comparison of requests above `limit` seconds with one more second, and how much their
    share varies in the old revision. After a switch nothing can be said about noise."""
    if analysis.baseline is not None:
        return analysis.quick, analysis.noise
    served, above = sum(old.latency.values()), _count_above(old.latency, limit)
    quick = analysis.quick.add(
        sum(new.latency.values()), _count_above(new.latency, limit), served, above, analysis.odds
    )
    return quick, analysis.noise.add(served, above)


def _alarm(analysis: CanaryAnalysis, settings: CanaryAnalysisSettings, slow_from: float) -> str:
    """The evidence that the new revision is worse; empty if there is none."""
    # Half of the level is for these looks and half for the final looks; two comparisons share it.
    level = (1.0 - settings.confidence) / 4
    failures, slow = analysis.failures, analysis.slow
    failures_level, slow_level = (level / (i * (i + 1)) if i else 0.0 for i in analysis.looks)
    if failures.strata >= FAILED_SECONDS and failures.p <= failures_level:
        return _describe_failed(failures, analysis)
    if slow.p <= slow_level and _is_slower(slow, settings):
        return f"{_describe_slow(slow, analysis, slow_from)}; {_describe_p(slow.p, analysis)}"
    confirmed = analysis.ejected and failures.new_bad >= EJECTED_FAILURES
    if confirmed and failures.p <= 1.0 - settings.confidence:
        return f"the proxy ejected one of its replicas; {_describe_failed(failures, analysis)}"
    return ""


def _is_slower(
    slow: Comparison, settings: CanaryAnalysisSettings, quantile: float = REFERENCE
) -> bool:
    """Whether there are enough requests, and the new revision's own quantile is too high.

    The second condition rules out a busy machine. That holds up all requests of one replica for a
    moment, whereas the comparison assumes that each request is slow independently.
    """
    if slow.strata < SLOW_SECONDS or slow.new < MIN_REQUESTS:
        return False
    return binomial(slow.new_bad, slow.new, 1.0 - quantile) <= 1.0 - settings.confidence


def _grow_share(
    analysis: CanaryAnalysis, settings: CanaryAnalysisSettings, now: float
) -> CanaryAnalysis:
    """Return the analysis at the next traffic step, once nothing speaks against it."""
    served = analysis.failures.new - analysis.step_requests
    waited = now - analysis.step_since
    if analysis.traffic_step >= len(TRAFFIC_STEPS):
        return analysis
    if served < STEP_REQUESTS and waited < STEP_SECONDS:
        return analysis
    if now < analysis.since + settings.warm or is_suspicious(analysis):
        return analysis
    return msgspec.structs.replace(
        analysis,
        traffic_step=analysis.traffic_step + 1,
        step_since=now,
        step_requests=analysis.failures.new,
    )


def is_suspicious(analysis: CanaryAnalysis) -> bool:
    """Whether the new revision looks worse, though that may be chance."""
    slow, failures = analysis.slow, analysis.failures
    if slow.new_share > 1.0 - REFERENCE and slow.p <= SUSPICIOUS_P:
        return True
    if failures.strata > 0 and failures.p <= SUSPICIOUS_P:
        return True
    return is_too_noisy(analysis)


def is_too_noisy(analysis: CanaryAnalysis) -> bool:
    """Whether noise may hide that the new revision is slower: the previous one's latency varies
    between seconds by more than chance, and the quick requests of the new one look slower."""
    noise, quick = analysis.noise, analysis.quick
    if not noise.exceeds_chance(NOISE_DEVIATIONS) or quick.new < MIN_REQUESTS:
        return False
    return quick.p_with_noise(noise.index) <= SUSPICIOUS_P


def analyze_stage(
    analysis: CanaryAnalysis,
    settings: CanaryAnalysisSettings,
    rate: float | None,
    share: float,
    monitor: float,
    now: float,
) -> AnalysisResult:
    """Decide on the current stage.

    - `rate`: recent requests per second of the service; None: not known yet.
    - `share`: share of them that the new revision can get (0..1).
    - `monitor`: seconds that the stage lasts if traffic is too low to analyze.
    """
    decision, reason = _decide(analysis, settings, rate, share, monitor, now)
    step = analysis.traffic_step
    max_share = TRAFFIC_STEPS[step] if step < len(TRAFFIC_STEPS) else 1.0
    return AnalysisResult(
        stage=analysis.stage, decision=decision, reason=reason, max_share=max_share
    )


def analyze_rest(analysis: CanaryAnalysis) -> AnalysisResult:
    """Decide after the last stage, while the remaining replicas are replaced.

    Only an alarm fails the revision then. There is no final look, as there would be one in every
    second.
    """
    if analysis.alarm:
        decision, reason = CanaryDecision.FAIL, analysis.alarm
    else:
        decision, reason = CanaryDecision.PASS, f"no worse in {_describe_counts(analysis)}"
    return AnalysisResult(stage=analysis.stage, decision=decision, reason=reason)


def _decide(
    analysis: CanaryAnalysis,
    settings: CanaryAnalysisSettings,
    rate: float | None,
    share: float,
    monitor: float,
    now: float,
) -> tuple[CanaryDecision, str]:
    if analysis.alarm:
        return CanaryDecision.FAIL, analysis.alarm
    served = analysis.failures.new - analysis.stage_requests
    waited = now - analysis.stage_since
    suspicious = is_suspicious(analysis)
    if served >= settings.requests and not suspicious:
        return CanaryDecision.PASS, f"no worse in {_describe_counts(analysis)}"
    too_low = rate is not None and rate * share * settings.wait < MIN_REQUESTS
    if too_low and not suspicious and waited >= (monitor if rate else 0.0):
        return CanaryDecision.PASS, f"too little traffic to analyze ({rate:.2g} requests/s)"
    noisy = is_too_noisy(analysis)
    wait = settings.wait * (NOISY_WAIT if noisy else 1.0)
    if waited < wait:
        if noisy and (served >= settings.requests or waited >= settings.wait):
            return CanaryDecision.WAIT, _describe_noise(analysis, settings)
        if served >= settings.requests:
            reason = f"it looks worse in {_describe_counts(analysis)}; not proven yet"
            return CanaryDecision.WAIT, reason
        return CanaryDecision.WAIT, f"analyzed {served} of {settings.requests} requests"
    # The final look of this stage: half of the level, for three comparisons.
    level = (1.0 - settings.confidence) / 6 / (analysis.stages * (analysis.stages + 1))
    failures, slow, quick = analysis.failures, analysis.slow, analysis.quick
    latency = analysis.baseline_latency
    if failures.p <= level and failures.strata >= FAILED_SECONDS:
        return CanaryDecision.FAIL, _describe_failed(failures, analysis)
    if slow.p <= level and _is_slower(slow, settings):
        reason = _describe_slow(slow, analysis, _slow_from(latency, settings))
        return CanaryDecision.FAIL, f"{reason}; {_describe_p(slow.p, analysis)}"
    if not noisy:
        reason = f"not proven worse in {_describe_counts(analysis)}, within {wait:g} s"
        return CanaryDecision.PASS, reason
    p = quick.p_with_noise(analysis.noise.index)
    if p <= level and _is_slower(quick, settings, QUICK):
        reason = _describe_slow(quick, analysis, _slow_from(latency, settings, QUICK))
        return CanaryDecision.FAIL, f"{reason}; {_describe_p(p, analysis, ' with this noise')}"
    reason = f"not proven worse within {wait:g} s; {_describe_noise(analysis, settings)}"
    return CanaryDecision.PASS, reason


def _describe_counts(analysis: CanaryAnalysis) -> str:
    served = analysis.failures.new
    return f"{served} request{'' if served == 1 else 's'}, {analysis.failures.new_bad} failed"


def _describe_failed(found: Comparison, analysis: CanaryAnalysis) -> str:
    return (
        f"{found.new_share:.2%} of its requests failed ({found.new_bad} of {found.new}), "
        f"{found.old_share:.2%} of the old revision's ({found.old_bad} of {found.old}) "
        f"{_describe_period(analysis)}; {_describe_p(found.p, analysis)}"
    )


def _describe_slow(found: Comparison, analysis: CanaryAnalysis, slow_from: float) -> str:
    return (
        f"{found.new_share:.1%} of its requests took over {slow_from * 1000:.3g} ms "
        f"({found.new_bad} of {found.new}), {found.old_share:.1%} of the old revision's "
        f"({found.old_bad} of {found.old}) {_describe_period(analysis)}"
    )


def _describe_noise(analysis: CanaryAnalysis, settings: CanaryAnalysisSettings) -> str:
    limit = _slow_from(analysis.baseline_latency, settings, QUICK)
    return (
        f"too noisy to analyze: {_describe_slow(analysis.quick, analysis, limit)}, whose share "
        f"varies {analysis.noise.index:.1f} times as much between seconds as by chance"
    )


def _describe_period(analysis: CanaryAnalysis) -> str:
    return "in the same seconds" if analysis.baseline is None else "before the switch"


def _describe_p(p: float, analysis: CanaryAnalysis, noise: str = "") -> str:
    odds = f" and {analysis.odds:g} times the odds" if analysis.odds != 1.0 else ""
    # 1e-300 keeps the number of digits sane where the probability underflows to 0.
    return f"by chance alone{odds}{noise}: p = {max(p, 1e-300):.1g}"
