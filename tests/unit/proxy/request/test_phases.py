"""The table of phases: complete, without dead ends, and in the order that comparisons rely on."""

import pytest

from proxy.request import phases
from proxy.request.phases import FIRST, NAMES, OVER, PICKING, SENT, TRANSITIONS


def reachable(start: int) -> set[int]:
    found, new = {start}, [start]
    while new:
        for phase in TRANSITIONS[new.pop()]:
            if phase not in found:
                found.add(phase)
                new.append(phase)
    return found


def test_each_phase_has_a_name_and_transitions() -> None:
    numbers = {
        value for name, value in vars(phases).items() if name.isupper() and isinstance(value, int)
    }
    assert numbers == set(NAMES) == set(TRANSITIONS) == set(range(len(NAMES)))
    assert len(set(NAMES.values())) == len(NAMES)


def test_each_phase_is_reached_and_ends() -> None:
    assert reachable(FIRST) == set(NAMES)
    assert all(OVER in reachable(phase) for phase in NAMES)
    assert TRANSITIONS[OVER] == ()


@pytest.mark.parametrize("phase", NAMES, ids=NAMES.get)
def test_phases_go_forward_except_for_retries_and_hedges(phase: int) -> None:
    back = {following for following in TRANSITIONS[phase] if following <= phase}
    allowed = {PICKING} if phase < SENT else {PICKING, phases.CONNECTING}
    assert back <= allowed
    assert not back or phase in (phases.CONNECTING, SENT)
