"""Where a rollout stands, in words."""

from typing import Any

import pytest

from meshd.model.canary import AnalysisResult
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.rollout.status import RolloutStatus, course
from meshd.spec.model import Service
from tests.support.rollouts import rollout

CANARY = {"strategy": "canary", "steps": ["20%", "50%"], "interval": 30}
CHOSEN = {**CANARY, "match": ["header:X-Canary=yes"]}
BLUE = {"strategy": "blue-green"}
TRIED = "tried on 12 of 200 requests"


def web(way: Any = None, **fields: Any) -> DesiredService:
    spec = Service.model_validate({"name": "web", "image": "app", "mesh": {"rollout": way or {}}})
    made = rollout(**fields)
    revision = made.effective_revision
    return DesiredService(project="shop", spec=spec, revision=revision, count=2, rollout=made)


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
    ("service", "counts", "word", "expected"),
    [
        (web(), {"old": 2}, "wait", RolloutStatus("new")),
        (web(), {"old": 2, "new": 1}, "wait", RolloutStatus("new", "5 % of the requests", TRIED)),
        (web(stage=1), {"old": 1, "new": 1}, "fine", RolloutStatus("new", "the rest replica by replica")),  # noqa: E501
        (web({"gate": False}), {"old": 1, "new": 1}, "wait", RolloutStatus("new", "replica by replica")),  # noqa: E501
        (
            web(CANARY, stage=1), {"old": 2, "new": 1}, "fine",
            RolloutStatus("new", "step 2 of 2: 50 % of the requests", f"{TRIED}, held for 30 s"),
        ),
        (
            web(CHOSEN), {"old": 2, "new": 1}, "wait",
            RolloutStatus("new", "step 1 of 3: 0 % of the requests, and whom `match` names", TRIED),
        ),
        (
            web(CANARY, state=RolloutState.PAUSED), {"old": 2, "new": 1},
            "wait", RolloutStatus("new", "step 1 of 2: 20 % of the requests", TRIED),
        ),
        (
            web(BLUE), {"old": 2, "new": 2}, "wait",
            RolloutStatus("new", "step 1 of 2: 0 % of the requests"),
        ),
        (
            web(BLUE, stage=2), {"old": 2, "new": 2}, "wait",
            RolloutStatus("new", "all requests, the old replicas are kept for a while"),
        ),
        (
            web(state=RolloutState.ROLLED_BACK), {"old": 2, "new": 1}, "worse",
            RolloutStatus(stage="going back"),
        ),
        (web(state=RolloutState.ROLLED_BACK), {"old": 2}, "worse", RolloutStatus()),
        (web(stage=1), {"new": 2}, "fine", RolloutStatus("new", "watched for 5 s")),
        (web(state=RolloutState.DONE), {"new": 2}, "fine", RolloutStatus()),
        (web(previous=""), {"new": 1}, "wait", RolloutStatus()),
    ],
)  # fmt: skip
def test_the_step_is_told(
    service: DesiredService, counts: dict[str, int], word: Any, expected: RolloutStatus
) -> None:
    verdict = AnalysisResult(stage=service.rollout.stage, word=word, text=TRIED, rung=0.05)
    assert course(service, replicas(**counts), verdict) == expected
