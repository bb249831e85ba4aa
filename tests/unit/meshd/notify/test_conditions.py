"""Conditions begin after they have held for a while, and end once."""

from meshd.model.event import Kind
from meshd.model.runtime import Node
from meshd.notify.burn import RULES, Burn
from meshd.notify.conditions import (
    ENDS,
    NO_ENDPOINT,
    ConditionTracker,
    Disk,
    burning,
    filling_disks,
    lost_nodes,
    unavailable,
)

WEB = unavailable("shop", "web", 2)


def kinds(tracker: ConditionTracker, *current: object, now: float) -> list[str]:
    return [str(change.kind) for change in tracker.step(list(current), now)]  # type: ignore[arg-type]


def test_a_condition_counts_once_it_has_held() -> None:
    tracker = ConditionTracker()
    assert kinds(tracker, WEB, now=100.0) == []
    assert kinds(tracker, WEB, now=99.0 + NO_ENDPOINT) == []
    assert kinds(tracker, WEB, now=100.0 + NO_ENDPOINT) == ["service.unavailable"]
    assert kinds(tracker, WEB, now=200.0) == []
    assert tracker.holds(Kind.SERVICE_UNAVAILABLE, "shop/web")
    assert kinds(tracker, now=201.0) == ["service.available"]
    assert kinds(tracker, now=202.0) == []


def test_a_short_one_leaves_no_trace() -> None:
    tracker = ConditionTracker()
    assert kinds(tracker, WEB, now=100.0) == []
    assert kinds(tracker, now=110.0) == []
    assert kinds(tracker, WEB, now=100.0 + NO_ENDPOINT) == []


def test_a_removed_service_ends_without_an_event() -> None:
    tracker = ConditionTracker()
    tracker.step([WEB], 0.0)
    assert tracker.step([WEB], NO_ENDPOINT)
    assert tracker.step([], 100.0, gone={"shop/web"}) == []


def test_each_condition_has_an_end() -> None:
    assert set(ENDS) | set(ENDS.values()) <= set(Kind)


def test_a_disk_is_full_at_one_share_and_free_at_a_lower_one() -> None:
    tracker = ConditionTracker()
    seen = []
    for used in (80, 89, 90, 95, 87, 85, 84, 89):
        found = filling_disks([Disk("/data", 100, used)], tracker)
        seen.append([str(change.kind) for change in tracker.step(found, 0.0)])
    assert seen == [[], [], ["disk.filling"], [], [], [], ["disk.free"], []]
    assert filling_disks([Disk("/dev/empty", 0, 0)], tracker) == []


def test_texts_say_what_and_how_much() -> None:
    burn = burning("shop", "web", Burn(RULES[0], 0.25, 0.05), 0.2)
    assert burn.text == (
        "25.0% of the requests of the last hour missed the objective: an answer within 0.2 s for "
        "95.00%"
    )
    slow = burning("shop", "web", Burn(RULES[1], 0.07, 0.01), None)
    assert "last 6 hours" in slow.text
    assert "without an error for 99.00%" in slow.text
    (disk,) = filling_disks([Disk("/data", 1000, 930)], ConditionTracker())
    assert disk.text == "93% of the disk of /data is in use"
    assert disk.numbers == {"share": 0.93, "free": 70.0}


def test_nodes_that_do_not_answer_are_lost() -> None:
    nodes = [Node("a", 1, 1), Node("b", 1, 1, state="down")]
    (found,) = lost_nodes(nodes)
    assert (found.subject, found.text) == ("b", "node b does not answer: down")
