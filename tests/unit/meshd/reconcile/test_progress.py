"""The progress of a deployment, and the state of a service."""

import pytest

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.progress import deployment_progress, service_state
from meshd.spec.model import Service
from tests.support.rollouts import rollout

ROLLING, DONE, ROLLED_BACK = RolloutState.ROLLING, RolloutState.DONE, RolloutState.ROLLED_BACK


def web(state: RolloutState = DONE, count: int = 1, previous: str = "") -> DesiredService:
    return DesiredService(
        project="shop", spec=Service(name="web"), revision="new", desired=count,
        rollout=rollout(state, previous, since=10.0),
    )  # fmt: skip


def replica(phase: Phase = Phase.READY, revision: str = "new", **more: object) -> Replica:
    return Replica(
        name="a", project="shop", service="web", revision=revision, phase=phase,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


CRASH = ReplicaFailure(at=11.0, replica="a", text="a exited with code 1")
FINAL = ReplicaFailure(at=11.0, replica="a", text="a: not healthy within 60 s", final=True)
EARLIER = ReplicaFailure(at=9.0, replica="a", text="long ago")


@pytest.mark.parametrize(
    ("service", "replicas", "failures", "cause", "settled", "ok", "text"),
    [
        (web(), [replica()], [], "", True, True, "web: 1 ready"),
        (web(count=0), [], [], "", True, True, "web: 0 ready"),
        (web(ROLLING), [replica()], [], "", False, False, "web: 1 of 1 ready"),
        (web(count=2), [replica()], [], "", False, False, "web: 1 of 2 ready"),
        (web(ROLLING), [], [CRASH], "", False, False,
         "web: 0 of 1 ready; a exited with code 1"),
        (web(ROLLING), [], [CRASH] * 3, "", True, False, "web: a exited with code 1"),
        (web(ROLLING), [], [FINAL], "", True, False, "web: a: not healthy within 60 s"),
        (web(ROLLING), [], [EARLIER] * 3, "", False, False, "web: 0 of 1 ready"),
        (web(ROLLING), [replica(Phase.FAILED)], [CRASH] * 3, "", False, False,
         "web: a exited with code 1"),
        (web(ROLLED_BACK), [replica()], [], "it crashed", True, False,
         "web was rolled back: it crashed"),
        (web(ROLLED_BACK), [replica(revision="other")], [], "it crashed", False, False,
         "web was rolled back: it crashed"),
        (web(ROLLING), [replica(Phase.PROBING, bad=1, probe="refused")], [], "", False,
         False, "web: 0 of 1 ready; a is probing (refused)"),
    ],
)  # fmt: skip
def test_progress_of_a_deployment(
    service: DesiredService,
    replicas: list[Replica],
    failures: list[ReplicaFailure],
    cause: str,
    settled: bool,
    ok: bool,
    text: str,
) -> None:
    found = deployment_progress(service, replicas, failures, cause, "")
    assert (found.settled, found.ok, found.text) == (settled, ok, text)


@pytest.mark.parametrize(
    ("service", "replicas", "waiting", "slots", "state"),
    [
        (web(), [replica()], "", {}, "ok"),
        (web(count=0), [], "", {}, "idle"),
        (web(ROLLING), [replica()], "", {}, "rolling"),
        (web(), [], "", {}, "starting"),
        (web(), [], "waits for db", {}, "waiting"),
        (web(count=2), [replica()], "", {}, "degraded"),
        (web(), [], "", {1: 5.0}, "backoff"),
        (web(), [], "", {3: 5.0}, "crash-loop"),
        (web(), [replica(Phase.PROBING, attempt=4)], "", {}, "crash-loop"),
        (web(ROLLING, 2, previous="old"), [replica()], "", {}, "rolling"),
    ],
)
def test_state_of_a_service(
    service: DesiredService,
    replicas: list[Replica],
    waiting: str,
    slots: dict[int, float],
    state: str,
) -> None:
    assert service_state(service, replicas, waiting, slots) == state


ONE_SHOT = Service(name="web", plain=True)


def one_shot(phase: Phase, code: int) -> tuple[DesiredService, Replica]:
    service = DesiredService(project="shop", spec=ONE_SHOT, revision="new", desired=1,
                             rollout=rollout(DONE, since=10.0))  # fmt: skip
    return service, replica(phase, exit_code=code, ended_at=11.0)


def test_a_completed_service_is_done_and_a_failed_one_ends_the_deployment() -> None:
    service, done = one_shot(Phase.COMPLETED, 0)
    assert deployment_progress(service, [done], [], "", "").text == "web: 1 completed"
    assert service_state(service, [done], "", {}) == "completed"
    service, failed = one_shot(Phase.FAILED, 1)
    waiting = deployment_progress(service, [failed], [CRASH], "", "")
    assert not waiting.settled, "its last lines are not known yet"
    known = deployment_progress(service, [failed], [CRASH], "", "", outputs_kept={"a"})
    assert (known.settled, known.ok, known.decisive) == (True, False, True)
    assert known.text == "web failed: a exited with code 1"
    assert service_state(service, [failed], "", {}) == "failed"


def test_a_service_whose_dependency_failed_does_not_end_the_deployment_before_it() -> None:
    """The last lines of the dependency would be missing."""
    found = deployment_progress(web(ROLLING), [], [], "", "", blocked="depends on db")
    assert (found.settled, found.ok, found.decisive) == (True, False, False)
    assert found.text == "web: depends on db"
