"""Values of canary analyses: what one revision served, an analysis, and its result. Pure.

`meshd.reconcile.rollout.canary_analysis` computes them, and `meshd.store.canary_analyses` stores
`CanaryAnalysis`. The stored field names are those before a rename (`name=`).
"""

from collections.abc import Mapping
from enum import Enum

import msgspec

from meshd.model.significance import Comparison, Dispersion


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
      revision gets, whichever revision serves them. See `meshd.model.significance`.
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
