"""Whether a volume may be written at the target of a copy."""

import pytest

from meshd.runtime.swarm.setup.volumes import CopyRequest, TargetState, find_copy_problem

PLAIN = CopyRequest("data", "data")
FORCED = CopyRequest("data", "data", force=True)


@pytest.mark.parametrize(
    ("request_", "state", "reason"),
    [
        (PLAIN, TargetState(), None),
        (PLAIN, TargetState(exists=True), None),
        (PLAIN, TargetState(exists=True, containers=("old",)), None),
        (PLAIN, TargetState(exists=True, running=("db",)), "in use by db; stop it first"),
        (FORCED, TargetState(exists=True, running=("db",)), "in use by db; stop it first"),
        (PLAIN, TargetState(exists=True, empty=False), "is not empty; --force replaces"),
        (FORCED, TargetState(exists=True, empty=False), None),
        (PLAIN, TargetState(exists=True, empty=False, marked=True), None),
        (
            FORCED,
            TargetState(exists=True, empty=False, containers=("old",)),
            "old has it; remove the container first",
        ),
    ],
)
def test_what_may_be_written(request_: CopyRequest, state: TargetState, reason: str | None) -> None:
    found = find_copy_problem(request_, "w1", state)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found
        assert "volume data on w1" in found
