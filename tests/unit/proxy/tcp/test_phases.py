"""The table of a session's phases: complete, without dead ends, forward except for retries."""

from proxy.tcp.phases import CONNECTING, FIRST, NAMES, OVER, PICKING, TRANSITIONS


def test_each_phase_has_a_name_is_reached_and_ends() -> None:
    assert set(NAMES) == set(TRANSITIONS) == set(range(len(NAMES)))
    found, new = {FIRST}, [FIRST]
    while new:
        for phase in TRANSITIONS[new.pop()]:
            if phase not in found:
                found.add(phase)
                new.append(phase)
    assert found == set(NAMES)
    assert TRANSITIONS[OVER] == ()
    assert all(OVER in following for phase, following in TRANSITIONS.items() if phase != OVER)


def test_only_another_attempt_leads_back() -> None:
    back = {
        (phase, each)
        for phase, following in TRANSITIONS.items()
        for each in following
        if each <= phase
    }
    assert back == {(CONNECTING, PICKING)}
