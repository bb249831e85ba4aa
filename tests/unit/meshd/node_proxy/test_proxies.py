"""What the control process knows of the proxies of nodes: drains, reports, generations."""

from dataclasses import dataclass, field

from meshd.model.event import Kind
from meshd.model.node_proxy import WORKERS_PER_NODE, is_local_worker
from meshd.node_proxy.proxies import LOST_SECONDS, MAX_WHOLE, WHOLE_SECONDS, NodeProxies
from meshd.node_proxy.snapshot import NodeSnapshots
from proxy.wire.codec import Decoder
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    Ejected,
    Hello,
    ListenFailed,
    Listening,
    Message,
    Peer,
    Publish,
    PublishDelta,
    Report,
    Resync,
    TicketSecrets,
    Workers,
)
from proxy.wire.snapshot import Endpoint, Generation, Service, Snapshot

NOTHING = Generation()
FIRST, SECOND = Generation(5, 1), Generation(5, 2)
N1, N2 = WORKERS_PER_NODE, 2 * WORKERS_PER_NODE


def snapshot(generation: Generation, **fingerprints: str) -> Snapshot:
    services = tuple(
        Service(f"shop/{name}", mark, (Endpoint(name, "10.0.0.1", 80),))
        for name, mark in sorted(fingerprints.items())
    )
    return Snapshot(generation, services)


@dataclass
class Scene:
    """Two nodes that joined, and what was sent to them."""

    time: float = 100.0
    messages: list[Message] = field(default_factory=list)
    events: list[tuple[Kind, str]] = field(default_factory=list)
    sent: dict[str, list[Publish | PublishDelta]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.proxies = NodeProxies(
            NodeSnapshots(str),
            self.messages.append,
            lambda kind, text: self.events.append((kind, text)),
            lambda: self.time,
            lambda: 1000.0 + self.time,
        )
        self.proxies.expect(["n1", "n2"])

    def connect(
        self, name: str, held: Generation = NOTHING, *live: int, role: str = SUPERVISOR
    ) -> "Sender":
        send = Sender(self.sent.setdefault(name, []))
        self.proxies.connect(name, "10.0.0.9", send)
        self.proxies.handle(name, Hello(role, held))
        self.proxies.handle(name, Workers(live or (1,)))
        return send

    def ack(self, name: str, generation: Generation, *busy: str, worker: int = 1) -> None:
        self.proxies.handle(name, Ack(worker, generation, busy))

    def live(self) -> tuple[int, ...]:
        return next(each.live for each in reversed(self.messages) if isinstance(each, Workers))


class Sender:
    """The connection of a node: decodes what is sent."""

    def __init__(self, sent: list[Publish | PublishDelta]) -> None:
        self._sent = sent
        self._decoder = Decoder()

    def __call__(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            assert isinstance(message, Publish | PublishDelta)
            self._sent.append(message)


def test_a_node_gets_the_whole_snapshot_then_differences() -> None:
    scene = Scene()
    scene.proxies.publish(snapshot(FIRST, a="1", b="1"))
    scene.connect("n1")
    scene.connect("n2", FIRST)  # of another control process: the server asks for a newer one
    scene.proxies.publish(snapshot(SECOND, a="1", b="2"))
    first, second = scene.sent["n1"]
    assert isinstance(first, Publish)
    assert (first.generation, len(first.update.services)) == (FIRST, 2)
    assert isinstance(second, PublishDelta)
    assert (second.delta.base, second.generation) == (FIRST, SECOND)
    assert [each.name for each in second.delta.endpoints] == ["shop/b"]
    (whole,) = scene.sent["n2"]
    assert isinstance(whole, Publish)
    assert len(whole.update.services) == 2
    scene.proxies.handle("n1", Resync(0))
    assert scene.sent["n1"][2] == whole


def test_which_proxies_are_lost() -> None:
    scene = Scene()
    scene.proxies.take_local(Listening({}, Peer("m1", 1)))
    send = scene.connect("n1")
    scene.proxies.handle("n1", Listening({}, Peer("forged", 2)))
    scene.proxies.handle("n2", Listening({}))
    assert scene.proxies.peers == {"m1": 1, "n1": 2, "n2": 0}
    assert scene.proxies.lost() == frozenset(), "it has a moment to connect"
    scene.time += LOST_SECONDS + 1.0
    assert scene.proxies.lost() == {"n2"}
    scene.proxies.disconnect("n1", send, "a test")
    assert scene.proxies.lost() == {"n1", "n2"}
    scene.proxies.forget("n2")
    assert scene.proxies.peers == {"m1": 1, "n1": 2}


def test_a_proxy_of_an_earlier_version_gets_no_delta() -> None:
    scene = Scene()
    scene.proxies.publish(snapshot(FIRST, a="1", b="1"))
    scene.connect("n1", role="supervisor")
    scene.connect("n2")
    scene.proxies.publish(snapshot(SECOND, a="1", b="2"))
    _, second = scene.sent["n1"]
    assert isinstance(second, Publish)
    assert [each.name for each in second.update.services] == ["shop/b"]
    assert second.update.unchanged == (("shop/a", "1"),)
    assert isinstance(scene.sent["n2"][1], PublishDelta)


def test_few_nodes_get_the_whole_snapshot_at_a_time() -> None:
    scene = Scene()
    scene.proxies.publish(snapshot(FIRST, a="1"))
    names = [f"n{number}" for number in range(MAX_WHOLE + 3)]
    senders = {name: scene.connect(name) for name in names}
    has = lambda: [name for name in names if scene.sent[name]]  # noqa: E731
    assert has() == names[:MAX_WHOLE]
    scene.ack("n0", FIRST)
    assert has() == names[: MAX_WHOLE + 1], "it has taken it"
    scene.proxies.disconnect("n1", senders["n1"], "lost")
    assert has() == names[: MAX_WHOLE + 2]
    scene.proxies.publish(snapshot(SECOND, a="2"))
    assert has() == names[: MAX_WHOLE + 2], "the last one waits, also for a change"
    scene.time += WHOLE_SECONDS
    scene.ack("n2", FIRST)
    (whole,) = scene.sent[names[-1]]
    assert (type(whole), whole.generation) == (Publish, SECOND)


def test_a_generation_of_another_control_process_is_noticed() -> None:
    scene = Scene()
    held = Hello(SUPERVISOR, Generation(9, 9))
    assert scene.proxies.held_above("n1", held) is None  # nothing is published yet
    scene.proxies.publish(snapshot(FIRST, a="1"))
    assert scene.proxies.held_above("n1", held) == Generation(9, 9)
    assert scene.proxies.held_above("n1", Hello(SUPERVISOR, FIRST)) == FIRST
    assert scene.proxies.held_above("n1", Hello(SUPERVISOR, Generation(4, 9))) is None
    assert scene.proxies.held_above("other", held) is None
    send = scene.connect("n1")
    scene.proxies.disconnect("n1", send, "test")
    # It has the one that this process sent: nothing is newer.
    assert scene.proxies.held_above("n1", Hello(SUPERVISOR, FIRST)) is None
    scene.connect("n1", FIRST)
    assert len(scene.sent["n1"]) == 1


def test_a_drain_waits_for_every_worker_of_every_node() -> None:
    scene = Scene()
    scene.connect("n1", Generation(), 1, 2)
    scene.connect("n2")
    drained = lambda: scene.proxies.is_drained("a", SECOND)  # noqa: E731
    assert not drained()
    scene.ack("n1", SECOND)
    scene.ack("n1", FIRST, worker=2)
    scene.ack("n2", SECOND, "a")
    assert not drained()
    scene.ack("n1", SECOND, worker=2)
    assert not drained()  # a request is in flight on n2
    scene.ack("n2", SECOND)
    assert drained()
    assert scene.proxies.has_installed(SECOND)
    assert not scene.proxies.has_installed(Generation(5, 3))


def test_a_node_that_is_gone_delays_a_drain_for_a_bounded_time() -> None:
    scene = Scene()
    scene.ack("n1", SECOND)
    assert not scene.proxies.is_drained("a", SECOND)  # they may be on the way back
    send = scene.connect("n1")
    scene.time += 2 * LOST_SECONDS
    assert not scene.proxies.is_drained("a", SECOND)  # n1 is connected
    scene.proxies.disconnect("n1", send, "it was silent")
    assert not scene.proxies.is_drained("a", SECOND)
    scene.time += LOST_SECONDS + 0.1
    assert scene.proxies.is_drained("a", SECOND)
    assert scene.proxies.has_installed(SECOND)
    assert scene.events[-1] == (
        Kind.NODE_PROXY_LOST,
        "the proxy of node n1 is not connected: it was silent; it serves its last snapshot",
    )


def test_the_end_of_a_connection_that_was_replaced_changes_nothing() -> None:
    scene = Scene()
    before = scene.connect("n1")
    scene.connect("n1")
    scene.proxies.disconnect("n1", before, "late")
    assert scene.proxies.status()[0].state != "lost"
    scene.proxies.disconnect("other", before, "unknown")


def test_workers_of_all_nodes_have_separate_numbers() -> None:
    scene = Scene()
    scene.proxies.take_local(Workers((1, 2)))
    scene.connect("n1", Generation(), 1, 2)
    send = scene.connect("n2", Generation(), 7)
    assert scene.live() == (1, 2, N1 + 1, N1 + 2, N2 + 7)
    assert [is_local_worker(each) for each in scene.live()] == [True, True, False, False, False]
    assert scene.proxies.worker_name(N2 + 7) == "worker 7 of node n2"
    assert scene.proxies.worker_name(2) == "worker 2"
    scene.proxies.handle("n2", Ejected(7, "shop/a", "a", 0.0, "resets"))
    assert scene.messages[-1] == Ejected(N2 + 7, "shop/a", "a", 0.0, "resets")
    scene.proxies.take_local(Ack(1, FIRST))
    assert scene.messages[-1] == Ack(1, FIRST)
    scene.proxies.disconnect("n2", send, "test")
    assert scene.live() == (1, 2, N1 + 1, N1 + 2)
    scene.proxies.forget("n1")
    scene.proxies.forget("n1")
    assert scene.live() == (1, 2)


def test_reports_of_a_node_whose_clock_is_wrong_count_for_now() -> None:
    scene = Scene()
    scene.connect("n1")
    for end, expected in ((1099.5, 1099.5), (40.0, 1100.0), (9000.0, 1100.0)):
        scene.proxies.handle("n1", Report(1, 1, end - 1.0, end, FIRST))
        report = scene.messages[-1]
        assert isinstance(report, Report)
        assert (report.worker, report.start, report.end) == (N1 + 1, expected - 1.0, expected)


def test_listeners_of_a_node_are_named_as_such() -> None:
    scene = Scene()
    scene.connect("n1")
    scene.proxies.handle("n1", ListenFailed("0.0.0.0:443", "in use"))
    assert scene.messages[-1] == ListenFailed("0.0.0.0:443 of node n1", "in use")
    scene.proxies.handle("n1", Listening({"0.0.0.0:443": "0.0.0.0:443"}))
    assert scene.messages[-1] == Listening({"0.0.0.0:443 of node n1": "0.0.0.0:443"})
    count = len(scene.messages)
    scene.proxies.handle("n1", TicketSecrets(()))
    scene.proxies.handle("other", ListenFailed("x", "y"))
    assert len(scene.messages) == count


def test_the_state_of_each_proxy_is_shown() -> None:
    scene = Scene()
    assert [(each.name, each.state, each.since) for each in scene.proxies.status()] == [
        ("n1", "lost", 0.0),
        ("n2", "lost", 0.0),
    ]
    scene.proxies.publish(snapshot(FIRST, a="1"))
    scene.connect("n1", Generation(), 1, 2)
    scene.ack("n1", FIRST)
    (n1, _) = scene.proxies.status()
    assert (n1.state, n1.generation, n1.workers) == ("behind", (0, 0), 2)
    scene.ack("n1", FIRST, worker=2)
    (n1, _) = scene.proxies.status()
    assert (n1.state, n1.generation, n1.address) == ("connected", (5, 1), "10.0.0.9")
