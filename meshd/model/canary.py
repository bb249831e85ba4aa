"""State and result of a canary analysis."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from meshd.model.significance import Comparison

Word = Literal["wait", "fine", "worse"]


class Counts(msgspec.Struct, frozen=True):
    """What one revision did in a second. `latency` counts by bucket those that are compared:
    of a replica that is still warming up, none."""

    requests: int = 0
    failed: int = 0
    latency: Mapping[int, int] = {}
    ejected: bool = False


class CanaryAnalysis(msgspec.Struct, frozen=True):
    """What is known of a new revision. `since` is when its first replica served, `stage_since`
    and `stage_requests` how it stood when the present stage began; `usual` are the old one's
    latencies. `stages` counts them. `rung` is how far its share has grown, `looks` how often each
    comparison was asked. `before` stands for the old revision where the two never serve at the
    same time. `odds` is how much more often, by themselves, its requests may be bad; see
    `evidence`."""

    since: float
    stage: int
    stage_since: float
    stage_requests: int = 0
    seen: float = 0.0
    failures: Comparison = Comparison()
    slow: Comparison = Comparison()
    usual: Mapping[int, int] = {}
    rung: int = 0
    rung_since: float = 0.0
    rung_requests: int = 0
    looks: tuple[int, int] = (0, 0)
    stages: int = 1
    ejected: bool = False
    alarm: str = ""
    before: Counts | None = None
    odds: float = 1.0


class AnalysisResult(msgspec.Struct, frozen=True):
    """What follows for `stage`: wait for more, let it on, or go back. `rung` is the share that
    it may have meanwhile, where its replicas alone do not say; `text` is the evidence."""

    stage: int
    word: Word
    text: str
    rung: float = 1.0
