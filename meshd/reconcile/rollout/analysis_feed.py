"""Feeds the canary analyses of all rollouts, second by second, from the workers' reports.

Owned by `meshd.reconcile.loop`, which asks for the results in every pass. It keeps one
`CanaryAnalysis` for each service that is rolled out; `canary_analysis` decides. Each analysis is
stored before anything follows from it, so a control process that takes over continues it. What is
served while no control process runs is not analyzed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from meshd.model.canary import AnalysisResult, CanaryAnalysis, RevisionSample
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.service_key import ServiceKey
from meshd.reconcile.rollout import canary_analysis
from meshd.reconcile.rollout.stages import GROWING, Stage, current_stage
from meshd.telemetry.ingest import Window
from meshd.telemetry.merge import MergedEndpoint

RECENT: Final = 10
"""Seconds of reports that give the request rate and the first baseline latency."""
MIN_REPORTED: Final = 5.0
"""Seconds of reports below which the request rate is unknown."""
BEFORE_SWITCH: Final = 60
"""Seconds of the previous revision that a blue/green switch is compared with."""


class TrafficSource(Protocol):
    """Merged reports; see `meshd.telemetry.ingest.Ingest`."""

    def window(self, service: ServiceKey, seconds: int, now: float) -> Window:
        """Return the last complete seconds of a service."""


class CanaryAnalysisStore(Protocol):
    """Stored analyses with the number of their release; see
    `meshd.store.canary_analyses.CanaryAnalysisLog`."""

    def read(self) -> Mapping[ServiceKey, tuple[int, CanaryAnalysis]]:
        """Return all that are stored."""

    def keep(self, analyses: Mapping[ServiceKey, tuple[int, CanaryAnalysis]]) -> None:
        """Store these."""


class AnalysisFeed:
    """Feeds the canary analyses in progress with merged reports. `traffic` None: rollouts run
    without analysis."""

    def __init__(self, store: CanaryAnalysisStore, traffic: TrafficSource | None) -> None:
        self._traffic = traffic
        self._store = store
        self._is_read = False
        self._analyses: dict[ServiceKey, tuple[int, CanaryAnalysis]] = {}
        self._results: dict[ServiceKey, AnalysisResult] = {}

    def analyze(
        self, services: Sequence[DesiredService], replicas: Sequence[Replica], now: float
    ) -> Mapping[ServiceKey, AnalysisResult] | None:
        """Take in the last second and return the results by service key; None without traffic."""
        if self._traffic is None:
            return None
        if not self._is_read:
            self._analyses, self._is_read = dict(self._store.read()), True
        analyzed = [s for s in services if not s.rollout.is_done and _is_analyzed(s)]
        keys = {service.key for service in analyzed}
        for key in [key for key in self._analyses if key not in keys]:
            del self._analyses[key]
        self._results = {k: result for k, result in self._results.items() if k in keys}
        if analyzed:
            groups: dict[ServiceKey, list[Replica]] = {key: [] for key in keys}
            for replica in replicas:
                if replica.key in groups and replica.phase is Phase.READY:
                    groups[replica.key].append(replica)
            before = dict(self._analyses)
            for service in analyzed:
                if service.rollout.is_rolling:
                    self._analyze_service(self._traffic, service, groups[service.key], now)
            changed = {k: a for k, a in self._analyses.items() if before.get(k) != a}
            if changed:
                self._store.keep(changed)
        return self._results

    def _analyze_service(
        self, traffic: TrafficSource, service: DesiredService, ready: Sequence[Replica], now: float
    ) -> None:
        key, rollout = service.key, service.rollout
        settings = service.spec.mesh.rollout.gate
        new = [r for r in ready if r.revision == service.revision]
        stage = current_stage(service)
        number, analysis = self._analyses.get(key, (0, None))
        if analysis is None or number != rollout.release_number:
            self._results.pop(key, None)
            begun = _begin(traffic, service, stage, len(new), len(ready), now)
            if begun is None:
                return
            analysis = begun
        if analysis.stage != rollout.stage:
            analysis = canary_analysis.begin_stage(analysis, rollout.stage, now)
        analysis = _add_last_second(traffic, service, analysis, new, now)
        self._analyses[key] = (rollout.release_number, analysis)
        if stage is None:
            self._results[key] = canary_analysis.analyze_rest(analysis)
            return
        share = len(new) / max(1, len(ready)) if stage.share == GROWING else stage.share
        recent = traffic.window(key, RECENT, now)
        rate = recent.rps if recent.merged.interval >= MIN_REPORTED else None
        monitor = service.spec.update.monitor
        self._results[key] = canary_analysis.analyze_stage(
            analysis, settings, rate, share, monitor, now
        )


def _is_analyzed(service: DesiredService) -> bool:
    rollout, settings = service.rollout, service.spec.mesh.rollout.gate
    enabled = settings.enabled and not rollout.skips_stages and not service.adopted
    return enabled and bool(rollout.previous) and rollout.in_progress


def _begin(
    traffic: TrafficSource,
    service: DesiredService,
    stage: Stage | None,
    new: int,
    ready: int,
    now: float,
) -> CanaryAnalysis | None:
    """A new analysis with a baseline of the previous revision.

    None while the stage is not analyzed, or not both revisions have ready replicas.
    """
    if (stage is not None and not stage.analyzed) or not new or new == ready:
        return None
    switched = stage is not None and stage.share == 1.0
    past = traffic.window(service.key, BEFORE_SWITCH if switched else RECENT, now)
    baseline = _sample(past, service.rollout.previous, frozenset())
    return canary_analysis.begin_analysis(
        service.rollout.stage,
        now,
        baseline.latency,
        baseline if switched else None,
        random_routing=not service.spec.mesh.rollout.match,
    )


def _add_last_second(
    traffic: TrafficSource,
    service: DesiredService,
    analysis: CanaryAnalysis,
    new: Sequence[Replica],
    now: float,
) -> CanaryAnalysis:
    """The analysis with the last reported second, if that is new and after its beginning."""
    last = traffic.window(service.key, 1, now)
    at = last.merged.start
    if not last.merged.interval or at <= analysis.last_second or at + 1.0 <= analysis.since:
        return analysis
    settings, mesh = service.spec.mesh.rollout.gate, service.spec.mesh
    warm_up = max(settings.warm, mesh.balance.slow_start)
    # After a switch all new replicas get their first requests at the same time.
    since = analysis.since if analysis.baseline is not None else 0.0
    warming_up = {r.name for r in new if max(r.ready_since, since) + warm_up > at}
    return canary_analysis.add_second(
        analysis,
        settings,
        at,
        _sample(last, service.revision, warming_up),
        _sample(last, service.rollout.previous, frozenset()),
    )


def _sample(window: Window, revision: str, warming_up: Iterable[str]) -> RevisionSample:
    """What one revision served in a window, without the latencies of replicas that warm up."""
    every, warm = MergedEndpoint(), MergedEndpoint()
    ejected = False
    left_out = frozenset(warming_up)
    for name, endpoint in window.merged.endpoints.items():
        if endpoint.revision != revision:
            continue
        every.add(endpoint)
        if name not in left_out:
            warm.add(endpoint)
        current = window.endpoints.get(name)
        ejected = ejected or bool(current and current.ejected_by)
    return RevisionSample(
        requests=every.succeeded + every.failed,
        failed=every.failed,
        latency=dict(warm.latency.counts),
        ejected=ejected,
    )
