"""The progress of a rollout in words."""

from typing import Any

import pytest

from meshd.model.canary import AnalysisResult, CanaryDecision
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.rollout.status import RolloutStatus, rollout_status
from meshd.spec.model import Service
from tests.support.rollouts import rollout

CANARY = {"strategy": "canary", "steps": ["20%", "50%"], "interval": 30}
CHOSEN = {**CANARY, "match": ["header:X-Canary=yes"]}
BLUE = {"strategy": "blue-green"}
ANALYZED = "analyzed 12 of 200 requests"
WAIT, PASS, FAIL = CanaryDecision.WAIT, CanaryDecision.PASS, CanaryDecision.FAIL


def web(settings: Any = None, **fields: Any) -> DesiredService:
    spec = Service.model_validate(
        {"name": "web", "image": "app", "mesh": {"rollout": settings or {}}}
    )
    made = rollout(**fields)
    revision = made.effective_revision
    return DesiredService(project="shop", spec=spec, revision=revision, desired=2, rollout=made)


def replicas(**counts: int) -> list[Replica]:
    return [
        Replica(
            name=f"{revision}{number}", project="shop", service="web", revision=revision,
            phase=Phase.READY,
        )
        for revision, count in counts.items()
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "counts", "decision", "expected"),
    [
        (web(), {"old": 2}, WAIT, RolloutStatus("new")),
        (web(), {"old": 2, "new": 1}, WAIT, RolloutStatus("new", "5 % of the requests", ANALYZED)),
        (web(stage=1), {"old": 1, "new": 1}, PASS, RolloutStatus("new", "the rest replica by replica")),  # noqa: E501
        (web({"gate": False}), {"old": 1, "new": 1}, WAIT, RolloutStatus("new", "replica by replica")),  # noqa: E501
        (
            web(CANARY, stage=1), {"old": 2, "new": 1}, PASS,
            RolloutStatus("new", "step 2 of 2: 50 % of the requests", f"{ANALYZED}, held for 30 s"),
        ),
        (
            web(CHOSEN), {"old": 2, "new": 1}, WAIT,
            RolloutStatus(
                "new", "step 1 of 3: 0 % of the requests, and those that `match` selects", ANALYZED
            ),
        ),
        (
            web(CANARY, state=RolloutState.PAUSED), {"old": 2, "new": 1},
            WAIT, RolloutStatus("new", "step 1 of 2: 20 % of the requests", ANALYZED),
        ),
        (
            web(BLUE), {"old": 2, "new": 2}, WAIT,
            RolloutStatus("new", "step 1 of 2: 0 % of the requests"),
        ),
        (
            web(BLUE, stage=2), {"old": 2, "new": 2}, WAIT,
            RolloutStatus("new", "all requests, the old replicas are kept for a while"),
        ),
        (
            web(state=RolloutState.ROLLED_BACK), {"old": 2, "new": 1}, FAIL,
            RolloutStatus(stage="rolling back"),
        ),
        (web(state=RolloutState.ROLLED_BACK), {"old": 2}, FAIL, RolloutStatus()),
        (web(stage=1), {"new": 2}, PASS, RolloutStatus("new", "monitored for 5 s")),
        (web(state=RolloutState.DONE), {"new": 2}, PASS, RolloutStatus()),
        (web(previous=""), {"new": 1}, WAIT, RolloutStatus()),
    ],
)  # fmt: skip
def test_the_status_describes_the_stage(
    service: DesiredService,
    counts: dict[str, int],
    decision: CanaryDecision,
    expected: RolloutStatus,
) -> None:
    analysis = AnalysisResult(service.rollout.stage, decision, ANALYZED, max_share=0.05)
    assert rollout_status(service, replicas(**counts), analysis) == expected
