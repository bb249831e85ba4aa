"""Stages of rollouts: their operations, traffic splits, and results of canary analyses."""

from typing import Any

import pytest

from meshd.model.canary import AnalysisResult, CanaryDecision
from meshd.model.desired import Desired, DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.preview.simulate import simulate
from meshd.reconcile.rollout import steps
from meshd.reconcile.rollout.stages import current_stage, stage_limits, stages, traffic_split
from meshd.spec.model import Service
from proxy.wire.snapshot import Match
from tests.support.fixed_random import FixedRandom
from tests.support.rollouts import rollout

NOW = 1000.0
DONE = RolloutState.DONE
BLUE = {"strategy": "blue-green"}
CANARY = {"strategy": "canary", "steps": ["10%", "50%"], "interval": 30}


def web(count: int = 2, settings: Any = None, update: Any = None, **fields: Any) -> DesiredService:
    spec = Service.model_validate(
        {"name": "web", "image": "app", "update": update or {}, "mesh": {"rollout": settings or {}}}
    )
    keeps_previous = fields.pop("keeps_previous", False)
    return DesiredService(
        project="shop", spec=spec, revision="new", desired=count, keeps_previous=keeps_previous,
        rollout=rollout(**{"release_number": 2, **fields}),
    )  # fmt: skip


def replicas(**counts: int) -> list[Replica]:
    return [
        Replica(
            name=f"{revision}{number}", project="shop", service="web", revision=revision,
            phase=Phase.READY, ready_since=NOW - 100,
        )
        for revision, count in counts.items()
        for number in range(count)
    ]  # fmt: skip


def diff(service: DesiredService) -> list[str]:
    """Every step to the end, without causes and without stops."""
    seen = Observed(replicas=tuple(replicas(old=service.desired)))
    wanted = Desired(services=(service,), projects=frozenset({"shop"}))
    lines = str(simulate(wanted, seen, NOW, FixedRandom())).splitlines()
    words = [line.partition(": ")[0].replace("shop/web", "it") for line in lines]
    return [word for word in words if word.split()[0] not in ("stop", "remove", "prepare")]


def test_the_first_start_names_the_first_stage() -> None:
    seen = Observed(replicas=tuple(replicas(old=2)), prepared=frozenset({("shop/web", "new")}))
    wanted = Desired(services=(web(2, CANARY),), projects=frozenset({"shop"}))
    first = str(simulate(wanted, seen, NOW, FixedRandom())).splitlines()[0]
    expected = "rollout of revision new, 10 % of the requests on 1 replica"
    assert first == f"start shop-web-baaaa (new): {expected}"


def test_a_simulated_canary_shows_all_stages() -> None:
    assert diff(web(2, CANARY)) == [
        "start shop-web-baaaa (new)",
        "shift it to new, 50 % of the requests on 1 replica",
        "shift it to new, replica by replica",
        "drain old0",
        "start shop-web-caaaa (new)",
        "drain old1",
    ]


def test_blue_green_starts_all_then_switches_then_drains_the_old_replicas() -> None:
    assert diff(web(2, {"strategy": "blue-green", "before": "migrate now"})) == [
        "run migrate now for it",
        "start shop-web-baaaa (new)",
        "start shop-web-caaaa (new)",
        "shift it to new, 100 % of the requests on 2 replicas",
        "shift it to new, for good, with the old ones kept for 300 s",
        "drain old0",
        "drain old1",
    ]


@pytest.mark.parametrize(
    ("settings", "update", "surge", "unavailable"),
    [
        ({}, {}, 1, 0),
        ({}, {"parallelism": 3}, 3, 0),
        ({}, {"parallelism": 0}, 10, 0),
        ({}, {"order": "stop-first", "parallelism": 2}, 0, 2),
        ({"max_surge": "25%"}, {}, 3, 0),
        ({"max_unavailable": "25%"}, {}, 1, 2),
        ({"max_surge": 0, "max_unavailable": "1%"}, {}, 0, 1),
        ({"max_surge": 4}, {"order": "stop-first"}, 4, 1),
    ],
)
def test_surge_and_unavailable(settings: Any, update: Any, surge: int, unavailable: int) -> None:
    found = stage_limits(web(10, settings, update))
    assert (found.surge, found.unavailable) == (surge, unavailable)


@pytest.mark.parametrize(
    ("service", "counts", "max_share", "expected"),
    [
        (web(3), {"old": 3}, 0.02, {"old": 1.0, "new": 0.0}),
        (web(3), {"old": 3, "new": 1}, 0.02, {"old": 0.98, "new": 0.02}),
        (web(3), {"old": 3, "new": 1}, 1.0, {"old": 0.75, "new": 0.25}),
        (web(3), {"old": 3, "bad": 1, "new": 1}, 0.02, {"old": 0.98, "new": 0.02}),
        (web(3), {"old": 1, "bad": 2, "new": 1}, 0.1, {"old": 0.3, "bad": 0.6, "new": 0.1}),
        (web(3, stage=1), {"old": 3, "new": 1}, 1.0, {}),
        (web(3), {"new": 3}, 1.0, {}),
        (web(3, CANARY), {"old": 3, "new": 1}, 1.0, {"old": 0.9, "new": 0.1}),
        (web(3, CANARY, stage=1), {"old": 3, "new": 2}, 1.0, {"old": 0.5, "new": 0.5}),
        (web(3, CANARY, stage=2), {"old": 2, "new": 1}, 1.0, {"old": 0.5, "new": 0.5}),
        (web(3, CANARY, stage=2), {"old": 1, "new": 3}, 1.0, {"old": 0.25, "new": 0.75}),
        (web(3, CANARY, stage=2), {"new": 3}, 1.0, {}),
        (web(3, CANARY, stage=2, skips_stages=True), {"old": 2, "new": 1}, 1.0, {}),
        (web(3, BLUE), {"old": 3, "new": 2}, 1.0, {"old": 1, "new": 0}),
        (web(3, BLUE, stage=1), {"old": 3, "new": 3}, 1, {"old": 0, "new": 1}),
        (web(3, BLUE, stage=2), {"old": 3, "new": 3}, 1, {"new": 1}),
        (web(3, state=DONE, keeps_previous=True), {"old": 3, "new": 3}, 1, {"new": 1}),
        (web(3, BLUE, state=DONE), {"old": 3, "new": 3}, 1, {"new": 1}),
        (web(3, BLUE, state=DONE), {"old": 3}, 1, {}),
        (web(3, state=DONE), {"old": 3, "new": 3}, 1, {}),
        (web(3, state=RolloutState.HALTED), {"old": 3, "new": 1}, 1, {"old": 1}),
        (web(3, state=RolloutState.PAUSED), {"old": 9, "new": 1}, 1, {"old": 0.9, "new": 0.1}),
        (web(3, previous=""), {"old": 3, "new": 1}, 1, {}),
    ],
)  # fmt: skip
def test_revisions_get_their_shares_of_the_traffic(
    service: DesiredService, counts: dict[str, int], max_share: float, expected: dict[str, float]
) -> None:
    analysis = AnalysisResult(
        stage=service.rollout.stage, decision=CanaryDecision.WAIT, reason="", max_share=max_share
    )
    found = traffic_split(service, replicas(**counts), analysis)
    assert (dict(found.weights) if found else {}) == pytest.approx(expected)


def test_a_canary_with_match_begins_with_matched_requests_only() -> None:
    service = web(3, {**CANARY, "match": ["header:X-Canary=yes"]})
    assert [stage.share for stage in stages(service)] == [0.0, 0.1, 0.5]
    found = traffic_split(service, replicas(old=3, new=1), None)
    assert found is not None
    assert dict(found.weights) == {"old": 1.0, "new": 0.0}
    assert (found.matches, found.matched) == ((Match("header", "X-Canary", "yes"),), "new")


def test_matched_requests_stay_with_the_new_revision_to_the_end() -> None:
    service = web(3, {**CANARY, "match": ["header:X-Canary=yes"]}, stage=3)
    assert current_stage(service) is None
    found = traffic_split(service, replicas(old=1, new=2), None)
    assert found is not None
    assert found.matched == "new"


@pytest.mark.parametrize(
    ("update", "outcome"),
    [
        ({}, RolloutState.ROLLED_BACK),
        ({"failure_action": "pause"}, RolloutState.HALTED),
        ({"failure_action": "continue"}, None),
    ],
)
def test_a_failed_analysis_leads_to_the_failure_action(
    update: Any, outcome: RolloutState | None
) -> None:
    service, analysis = (
        web(2, update=update),
        AnalysisResult(stage=0, decision=CanaryDecision.FAIL, reason="9 of 9 failed"),
    )
    new, old = replicas(new=1), replicas(old=2)
    end = steps.finish_rollout(service, new, old, (), NOW, analysis)
    assert (end.outcome if end else None) == outcome
    assert end is None or end.cause == "9 of 9 failed"
    step = steps.advance_stage(service, new, old, analysis, NOW)
    assert outcome is not None or (step is not None and "although 9 of 9" in step.cause)


def test_a_result_for_another_stage_does_not_end_this_one() -> None:
    service = web(2, CANARY, stage=1)
    new, old = replicas(new=1), replicas(old=2)
    for stage, over in ((0, False), (1, True)):
        analysis = AnalysisResult(stage=stage, decision=CanaryDecision.PASS, reason="no worse")
        assert (steps.advance_stage(service, new, old, analysis, NOW) is not None) == over


def test_an_undo_has_no_stages_and_a_default_rollout_has_one() -> None:
    assert stages(web(2, skips_stages=True)) == ()
    assert stages(web(2, {"gate": False})) == ()
    assert len(stages(web(2))) == 1
    assert len(stages(web(2, {"strategy": "blue-green"}, skips_stages=True))) == 2
