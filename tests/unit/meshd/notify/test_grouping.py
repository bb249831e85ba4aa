"""What is sent when: waiting, grouping, repetition, resolution, silence."""

from dataclasses import replace

import pytest

from meshd.model.event import Event, Kind
from meshd.model.silence import Silence
from meshd.notify.grouping import (
    MAX_ALERTS,
    MAX_KNOWN,
    GroupState,
    Message,
    add_alert,
    take_message,
)
from meshd.notify.topics import FIRING, RESOLVED, Alert, alert_of
from meshd.spec.model.notify import TOPICS, NotifyTarget

TARGET = NotifyTarget(url="https://hooks.test/secret", wait=10, interval=60, repeat=3600)
DOWN = Alert("no-endpoint", "shop/web", True, 100.0, "no replica", "shop", "web")
UP = replace(DOWN, firing=False, text="ready again")
LOOP = Alert("crash-loop", "shop/api", True, 100.0, "exit 1", "shop", "api", "api-1")


class Scene:
    """A target in virtual time."""

    def __init__(self, target: NotifyTarget = TARGET) -> None:
        self.target = target
        self.state = GroupState()
        self.silences: list[Silence] = []

    def add(self, alert: Alert, now: float) -> None:
        self.state = add_alert(self.state, alert, self.target, now)

    def take(self, now: float) -> Message | None:
        self.state, message = take_message(self.state, self.target, self.silences, now)
        return message


def alerts(message: Message | None) -> list[tuple[str, bool]]:
    assert message is not None
    return [(each.subject, each.firing) for each in message.alerts]


def test_alerts_that_come_together_are_one_message() -> None:
    scene = Scene()
    scene.add(DOWN, 100.0)
    scene.add(LOOP, 105.0)
    assert scene.take(109.0) is None
    assert alerts(scene.take(110.0)) == [("shop/web", True), ("shop/api", True)]
    assert scene.take(1000.0) is None


def test_messages_keep_their_distance() -> None:
    scene = Scene()
    scene.add(DOWN, 100.0)
    assert scene.take(110.0)
    scene.add(LOOP, 111.0)
    assert scene.take(169.0) is None
    assert alerts(scene.take(170.0)) == [("shop/api", True)]


def test_the_same_problem_is_repeated_after_a_while_only() -> None:
    scene = Scene()
    scene.add(LOOP, 100.0)
    assert scene.take(110.0)
    scene.add(LOOP, 3000.0)
    assert scene.take(3100.0) is None
    scene.add(LOOP, 3710.0)
    assert scene.take(3720.0)


def test_the_last_text_of_a_waiting_problem_is_sent() -> None:
    scene = Scene()
    scene.add(LOOP, 100.0)
    scene.add(replace(LOOP, text="exit 2"), 101.0)
    message = scene.take(110.0)
    assert message is not None
    assert [each.text for each in message.alerts] == ["exit 2"]


def test_the_end_of_a_problem_is_sent_if_its_begin_was() -> None:
    scene = Scene()
    scene.add(UP, 90.0)
    assert scene.take(200.0) is None
    scene.add(DOWN, 300.0)
    scene.add(UP, 305.0)
    assert scene.take(400.0) is None, "it was over before anything was sent"
    scene.add(DOWN, 500.0)
    assert scene.take(510.0)
    scene.add(UP, 520.0)
    assert alerts(scene.take(570.0)) == [("shop/web", False)]
    # Now it may begin again at once.
    scene.add(DOWN, 580.0)
    assert alerts(scene.take(630.0)) == [("shop/web", True)]


def test_a_problem_that_ends_and_begins_again_unsent_is_one() -> None:
    scene = Scene()
    scene.add(DOWN, 100.0)
    assert scene.take(110.0)
    scene.add(UP, 120.0)
    scene.add(DOWN, 130.0)
    assert alerts(scene.take(170.0)) == [("shop/web", True)]


def test_a_target_gets_its_topics_only() -> None:
    scene = Scene(TARGET.model_copy(update={"events": ("crash-loop",)}))
    scene.add(DOWN, 100.0)
    scene.add(LOOP, 100.0)
    assert alerts(scene.take(110.0)) == [("shop/api", True)]


@pytest.mark.parametrize(
    ("silence", "subjects"),
    [
        (Silence("s", "", "", "", 200.0, "me"), []),
        (Silence("s", "shop", "web", "", 200.0, "me"), ["shop/api"]),
        (Silence("s", "", "", "crash-loop", 200.0, "me"), ["shop/web"]),
        (Silence("s", "other", "", "", 200.0, "me"), ["shop/web", "shop/api"]),
        (Silence("s", "", "", "", 109.0, "me"), ["shop/web", "shop/api"]),
    ],
    ids=["all", "service", "topic", "other project", "ended"],
)
def test_silenced_problems_are_not_sent(silence: Silence, subjects: list[str]) -> None:
    scene = Scene()
    scene.silences = [silence]
    scene.add(DOWN, 100.0)
    scene.add(LOOP, 100.0)
    message = scene.take(110.0)
    assert [each.subject for each in message.alerts] == subjects if message else not subjects


def test_a_silenced_problem_is_sent_when_it_happens_after_the_silence() -> None:
    scene = Scene()
    scene.silences = [Silence("s", "", "", "", 200.0, "me")]
    scene.add(DOWN, 100.0)
    assert scene.take(110.0) is None
    scene.add(UP, 150.0)
    assert scene.take(160.0) is None
    scene.add(DOWN, 300.0)
    assert scene.take(310.0)


def test_a_message_and_the_memory_are_bounded() -> None:
    scene = Scene()
    for number in range(MAX_ALERTS + 7):
        scene.add(replace(LOOP, subject=f"shop/s{number}"), 100.0)
    message = scene.take(110.0)
    assert message is not None
    assert (len(message.alerts), message.more) == (MAX_ALERTS, 7)
    known = {("crash-loop", f"shop/k{number}"): 1.0 for number in range(MAX_KNOWN)}
    scene.state = GroupState(known=known)
    scene.add(LOOP, 200.0)
    assert scene.take(300.0)
    assert len(scene.state.known) == MAX_KNOWN
    assert ("crash-loop", "shop/api") in scene.state.known


def test_events_become_alerts() -> None:
    event = Event(1, 5.0, Kind.REPLICA_CRASH_LOOP, "shop", "api", "api-1", "exit 1")
    assert alert_of(event) == replace(LOOP, at=5.0)
    assert alert_of(Event(1, 5.0, Kind.DEPLOY, "shop")) is None
    begun = alert_of(Event(1, 5.0, Kind.NODE_LOST, replica="n1", text="node n1 does not answer"))
    ended = alert_of(Event(2, 6.0, Kind.NODE_BACK, replica="n1", text="node n1 answers again"))
    assert begun is not None
    assert ended is not None
    assert (begun.topic, begun.subject, begun.firing, begun.replica) == ("node", "n1", True, "")
    assert (ended.subject, ended.firing) == ("n1", False)
    full = alert_of(Event(1, 5.0, Kind.STATE_LOST, text="no space left"))
    room = alert_of(Event(1, 5.0, Kind.STATE_BACK, text="the state can be written again"))
    assert full is not None
    assert room is not None
    assert full.subject == room.subject
    ends = alert_of(Event(1, 5.0, Kind.CERTIFICATE_EXPIRING, text="x ends"))
    assert ends is not None
    assert ends.subject == "x ends"


def test_every_topic_has_an_event() -> None:
    assert set(FIRING.values()) == set(TOPICS)
    assert set(RESOLVED.values()) <= set(TOPICS)
