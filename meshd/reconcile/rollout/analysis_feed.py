"""New revisions on trial: what their traffic says, second by second, from the workers' reports.

Keeps one `gate.Trial` a service that is being rolled out, and decides nothing itself. Each is
stored before anything follows from it, so that a process that takes over goes on asking where the
one before it stopped; what the traffic said in between is lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from meshd.model.canary import AnalysisResult, CanaryAnalysis, Counts
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.reconcile.rollout import canary_analysis
from meshd.reconcile.rollout.stages import GROWING, current
from meshd.telemetry.ingest import Window
from meshd.telemetry.merge import MergedEndpoint

USUAL: Final = 10
KNOWN: Final = 5.0
"""Seconds of reports under which it is not known how much traffic there is."""
BEFORE: Final = 60
"""Seconds of the old revision that a switch is measured by."""


class TrafficSource(Protocol):
    """Where reports are summed up; see `meshd.telemetry.ingest.Ingest`."""

    def window(self, service: str, seconds: int, now: float) -> Window:
        """The last complete seconds of a service."""


class CanaryAnalysisStore(Protocol):
    """Where trials outlive the process, each with its release's number; see
    `meshd.store.canary_analyses.CanaryAnalysisLog`."""

    def read(self) -> Mapping[str, tuple[int, CanaryAnalysis]]:
        """Everything that is stored, by service."""

    def keep(self, trials: Mapping[str, tuple[int, CanaryAnalysis]]) -> None:
        """Store some."""


class Trials:
    """`traffic` is where to look; None: there is no analysis."""

    def __init__(self, kept: CanaryAnalysisStore, traffic: TrafficSource | None) -> None:
        self._traffic = traffic
        self._kept = kept
        self._read = False
        self._trials: dict[str, tuple[int, CanaryAnalysis]] = {}
        self._verdicts: dict[str, AnalysisResult] = {}

    def look(
        self, services: Sequence[DesiredService], replicas: Sequence[Replica], now: float
    ) -> Mapping[str, AnalysisResult] | None:
        """The verdict on each service that has a revision on trial, by key."""
        if self._traffic is None:
            return None
        if not self._read:
            self._trials, self._read = dict(self._kept.read()), True
        tried = [s for s in services if not s.rollout.is_done and _tried(s)]
        keys = {service.key for service in tried}
        for key in [key for key in self._trials if key not in keys]:
            del self._trials[key]
        self._verdicts = {k: v for k, v in self._verdicts.items() if k in keys}
        if tried:
            groups: dict[str, list[Replica]] = {key: [] for key in keys}
            for replica in replicas:
                if replica.key in groups and replica.phase is Phase.READY:
                    groups[replica.key].append(replica)
            before = dict(self._trials)
            for service in tried:
                if service.rollout.is_rolling:
                    self._look_at(self._traffic, service, groups[service.key], now)
            changed = {k: t for k, t in self._trials.items() if before.get(k) != t}
            if changed:
                self._kept.keep(changed)
        return self._verdicts

    def _look_at(
        self, traffic: TrafficSource, service: DesiredService, ready: Sequence[Replica], now: float
    ) -> None:
        key, settings = service.key, service.spec.mesh.rollout
        new = [r for r in ready if r.revision == service.revision]
        stage = current(service)
        number, trial = self._trials.get(key, (0, None))
        if trial is None or number != service.rollout.release_number:
            self._verdicts.pop(key, None)
            unjudged = stage is not None and not stage.judged
            if unjudged or not new or len(new) == len(ready):
                return
            switched = stage is not None and stage.share == 1.0
            trial = _begun(traffic, service, switched, now)
        if trial.stage != service.rollout.stage:
            trial = canary_analysis.staged(trial, service.rollout.stage, now)
        last = traffic.window(key, 1, now)
        at = last.merged.start
        if last.merged.interval and at > trial.seen and at + 1.0 > trial.since:
            warm = max(settings.gate.warm, service.spec.mesh.balance.slow_start)
            since = trial.since if trial.before is not None else 0.0
            cold = {r.name for r in new if max(r.ready_since, since) + warm > at}
            mine = _counts(last, service.revision, cold)
            theirs = _counts(last, service.rollout.previous, frozenset())
            trial = canary_analysis.take(trial, settings.gate, at, mine, theirs)
        self._trials[key] = (service.rollout.release_number, trial)
        if stage is None:
            self._verdicts[key] = canary_analysis.onward(trial)
            return
        share = len(new) / max(1, len(ready))
        if stage.share != GROWING:
            share = stage.share
        lately = traffic.window(key, USUAL, now)
        rate = lately.rps if lately.merged.interval >= KNOWN else None
        monitor = service.spec.update.monitor
        self._verdicts[key] = canary_analysis.verdict(
            trial, settings.gate, rate, share, monitor, now
        )


def _tried(service: DesiredService) -> bool:
    settings = service.spec.mesh.rollout.gate
    judged = settings.enabled and not service.rollout.skips_stages and not service.adopted
    return judged and bool(service.rollout.previous) and service.rollout.in_progress


def _begun(
    traffic: TrafficSource, service: DesiredService, switched: bool, now: float
) -> CanaryAnalysis:
    """A trial that starts now, knowing what the old revision did of late."""
    past = traffic.window(service.key, BEFORE if switched else USUAL, now)
    before = _counts(past, service.rollout.previous, frozenset())
    by_lot = not service.spec.mesh.rollout.match
    return canary_analysis.began(
        service.rollout.stage, now, before.latency, before if switched else None, by_lot
    )


def _counts(window: Window, revision: str, cold: Iterable[str]) -> Counts:
    """What one revision did in a window; the latencies of `cold` replicas left out."""
    every, warm = MergedEndpoint(), MergedEndpoint()
    ejected = False
    left_out = frozenset(cold)
    for name, endpoint in window.merged.endpoints.items():
        if endpoint.revision != revision:
            continue
        every.add(endpoint)
        if name not in left_out:
            warm.add(endpoint)
        now = window.endpoints.get(name)
        ejected = ejected or bool(now and now.ejected_by)
    return Counts(
        requests=every.succeeded + every.failed,
        failed=every.failed,
        latency=dict(warm.latency.counts),
        ejected=ejected,
    )
