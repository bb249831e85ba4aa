"""The findings of `meshd doctor`, by the facts about a machine."""

from dataclasses import replace
from typing import Any

import pytest

from meshd.cli.doctor.checks import Level, MachineFacts, diagnose

HEALTHY = MachineFacts(
    engine="27.1", engine_api=(1, 46), engine_clock=0.1, daemon="0.1.0", own="0.1.0",
    files=1024, file_limit=1 << 20, space=50 << 30, inodes=0.9, state="/var/lib/meshd",
    backlog=4096, local_ports=28232, forwarding=True, synchronized=True, memory=8 << 30,
)  # fmt: skip


def test_a_machine_in_order_has_no_advice() -> None:
    found = diagnose(HEALTHY)
    assert {each.level for each in found} == {Level.GOOD}
    assert not [each for each in found if each.advice]
    assert [each.name for each in found] == [
        "engine", "daemon", "ports", "file limit", "disk", "clock", "kernel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "level", "words"),
    [
        ({"engine_problem": "no socket"}, "engine", Level.BAD, "systemctl start docker"),
        ({"engine_api": (1, 40)}, "engine", Level.WARN, "upgrade"),
        ({"daemon": "", "daemon_problem": "gone"}, "daemon", Level.WARN, "meshd up"),
        ({"daemon": "0.0.9"}, "daemon", Level.WARN, "version 0.0.9"),
        ({"runtime_state": "does not answer"}, "daemon", Level.BAD, "does not answer"),
        ({"busy_ports": ((8080, "is in use"),)}, "ports", Level.WARN, "port 8080 is in use"),
        ({"file_limit": 1024}, "file limit", Level.BAD, "LimitNOFILE"),
        ({"file_limit": 20000}, "file limit", Level.WARN, "ulimit -n"),
        ({"space": 50 << 20}, "disk", Level.BAD, "50 MiB free"),
        ({"space": 500 << 20}, "disk", Level.WARN, "docker image prune"),
        ({"inodes": 0.01}, "disk", Level.WARN, "1% of the inodes"),
        ({"state_problem": "read-only"}, "state", Level.BAD, "--state"),
        ({"engine_clock": -3.0}, "clock", Level.WARN, "3.0 s behind"),
        ({"synchronized": False}, "clock", Level.WARN, "not synchronized"),
        ({"backlog": 128}, "kernel", Level.WARN, "somaxconn=4096"),
        ({"local_ports": 1000}, "kernel", Level.WARN, "ip_local_port_range"),
        ({"forwarding": False}, "kernel", Level.BAD, "ip_forward=1"),
        ({"root": False}, "rights", Level.WARN, "not root"),
        ({"iptables": False}, "rights", Level.WARN, "install the package iptables"),
        ({"http2": False}, "http2", Level.WARN, "ngh2"),
        ({"compiled": False}, "speed", Level.WARN, "C compiler"),
        ({"memory": 10 << 20}, "memory", Level.WARN, "10 MiB available"),
    ],
)
def test_each_problem_is_found_with_advice(
    changed: dict[str, Any], name: str, level: Level, words: str
) -> None:
    bad = [each for each in diagnose(replace(HEALTHY, **changed)) if each.level is not Level.GOOD]
    assert [(each.name, each.level) for each in bad] == [(name, level)]
    assert bad[0].advice
    assert words in f"{bad[0].text} {bad[0].advice}"


def test_without_an_engine_nothing_about_it_matters() -> None:
    facts = replace(HEALTHY, runtime="process", engine_problem="none", forwarding=False, root=False)
    assert {each.level for each in diagnose(facts)} == {Level.GOOD}


def test_facts_that_are_not_known_are_no_problem() -> None:
    found = diagnose(MachineFacts(engine="27.1", daemon="1", file_limit=1 << 20))
    assert {each.level for each in found} == {Level.GOOD}
