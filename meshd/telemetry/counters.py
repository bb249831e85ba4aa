"""Counters of what happens and is decided, for `/metrics`.

The event log, the autoscaler and the reconciler count here; `metrics` exposes the numbers. They
start at zero with the process.
"""

from collections import Counter
from typing import Final

from meshd.model.event import JOB, ROLLOUT, Event, Kind
from meshd.telemetry.merge import Distribution

ROLLOUT_RESULTS: Final = tuple(
    kind.removeprefix(ROLLOUT)
    for kind in (Kind.ROLLOUT_DONE, Kind.ROLLOUT_FAILED, Kind.ROLLOUT_ROLLED_BACK)
)
"""Results of rollouts that are counted from zero."""
NOTIFICATION_OUTCOMES: Final = ("sent", "retried", "dropped")
"""Outcomes of messages to webhooks and of attempts to send them."""
MOST_CAUSES: Final = 32
"""Causes of scaling decisions with their own label value; all others count as `other`, so that
the number of time series is bounded."""


class EventCounters:
    """All counters of events, as `/metrics` shows them.

    - `scale_decisions`: by service, direction (`up`, `down`, `hold`) and cause.
    - `rollouts`, `jobs`: by service and result.
    - `events`: by kind.
    - `starts`, `cold_starts`: seconds until a replica was ready, by service; `cold_starts` from
      the request that woke the service.
    - `notifications`: by outcome.
    - `overflows`: counts under an overflow label, by metric.
    """

    def __init__(self) -> None:
        self.scale_decisions: Counter[tuple[str, str, str]] = Counter()
        self.rollouts: Counter[tuple[str, str]] = Counter()
        self.jobs: Counter[tuple[str, str]] = Counter()
        # From zero, because a server does not see the increase of a series that begins with 1.
        self.events: Counter[str] = Counter(dict.fromkeys(map(str, Kind), 0))
        self.starts: dict[str, Distribution] = {}
        self.cold_starts: dict[str, Distribution] = {}
        self.notifications: Counter[str] = Counter(dict.fromkeys(NOTIFICATION_OUTCOMES, 0))
        self.overflows: Counter[str] = Counter({"meshd_scale_decisions_total": 0})
        self._causes: set[str] = set()

    def count_scale(self, service: str, direction: str, cause: str) -> None:
        """Count a decision of the autoscaler for `PROJECT/SERVICE`."""
        if len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
        label = cause if cause in self._causes else "other"
        if label != cause:
            self.overflows["meshd_scale_decisions_total"] += 1
        self.scale_decisions[service, direction, label] += 1

    def count_notification(self, outcome: str) -> None:
        """Count a message to a webhook that was sent or dropped, or an attempt that failed."""
        self.notifications[outcome] += 1

    def observe_start(self, service: str, seconds: float) -> None:
        """Count a replica of `PROJECT/SERVICE` that was ready `seconds` after its start was
        ordered."""
        self.starts.setdefault(service, Distribution()).observe(seconds)

    def observe_cold_start(self, service: str, seconds: float) -> None:
        """Count a start from zero: `seconds` from the request that woke `PROJECT/SERVICE` to its
        first ready replica."""
        self.cold_starts.setdefault(service, Distribution()).observe(seconds)

    def observe_event(self, event: Event) -> None:
        """Count an event; a kind that `Kind` does not have counts as `other`."""
        known = event.kind in Kind.__members__.values()
        self.events[event.kind if known else "other"] += 1
        if known and event.kind.startswith(ROLLOUT):
            result = event.kind.removeprefix(ROLLOUT)
            self.rollouts[f"{event.project}/{event.service}", result] += 1
        if known and event.kind.startswith(JOB):
            result = event.kind.removeprefix(JOB)
            self.jobs[f"{event.project}/{event.service}", result] += 1
