"""What the publisher concludes from acks: when an endpoint is drained, and the next generation."""

from pathlib import Path

import msgspec

from meshd.publish.publisher import Publisher
from proxy.wire.report import SUPERVISOR, Ack, Hello, Message, Workers
from proxy.wire.snapshot import (
    AcmeChallenge,
    Endpoint,
    EndpointState,
    Generation,
    Service,
    Snapshot,
)


def snapshot(**states: EndpointState) -> Snapshot:
    members = tuple(Endpoint(id=i, host="h", port=1, state=s) for i, s in sorted(states.items()))
    service = Service(name="shop/web", fingerprint=str(states), endpoints=members)
    return Snapshot(generation=Generation(), services=(service,))


def connected(*messages: Message, epoch: int = 1) -> Publisher:
    publisher = Publisher(Path("nowhere"), epoch, lambda message: None)
    for message in (Hello(SUPERVISOR), *messages):
        publisher.handle(message)
    return publisher


def ack(publisher: Publisher, worker: int, *busy: str, behind: int = 0) -> Ack:
    generation = publisher.generation
    return Ack(worker, Generation(generation.epoch, generation.number - behind), busy)


def test_each_change_is_published_once_with_the_next_generation() -> None:
    publisher = connected()
    assert publisher.publish(snapshot(a="ready"))
    assert not publisher.publish(snapshot(a="ready"))
    assert publisher.publish(snapshot(a="draining"))
    assert publisher.generation == Generation(1, 2)


def test_an_endpoint_is_drained_once_every_live_worker_acks() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    assert not publisher.is_drained("a")
    publisher.handle(ack(publisher, 1))
    assert not publisher.is_drained("a")
    publisher.handle(ack(publisher, 2, "a"))
    assert not publisher.is_drained("a")
    publisher.handle(ack(publisher, 2))
    assert publisher.is_drained("a")


def test_a_supervisor_says_that_it_ends() -> None:
    publisher = connected(Workers((1, 2)))
    assert not publisher.ending
    publisher.handle(Workers((1,), ending=True))
    assert publisher.ending
    # One that replaces it, also of a version that does not know the field.
    publisher.handle(Workers((3,)))
    assert not publisher.ending


def test_a_challenge_is_answered_once_every_live_worker_acks_it() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    assert not publisher.is_answered("t")
    challenge = AcmeChallenge("http-01", "a.test", "t", "t.print")
    publisher.publish(msgspec.structs.replace(snapshot(a="ready"), challenges=(challenge,)))
    publisher.handle(ack(publisher, 1))
    publisher.handle(ack(publisher, 2, behind=1))
    assert not publisher.is_answered("t")
    publisher.handle(ack(publisher, 2))
    assert publisher.is_answered("t")
    assert not publisher.is_answered("other")


def test_a_snapshot_is_installed_once_every_live_worker_acks_it_or_a_later_one() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    first = publisher.generation
    publisher.handle(ack(publisher, 1))
    assert not publisher.is_installed(first)
    publisher.publish(snapshot(a="draining"))
    publisher.handle(ack(publisher, 2))
    assert publisher.is_installed(first)
    assert not publisher.is_installed(publisher.generation)


def test_an_ack_of_an_older_generation_proves_nothing() -> None:
    publisher = connected(Workers((1,)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    publisher.handle(ack(publisher, 1, behind=1))
    assert not publisher.is_drained("a")


def test_an_ended_worker_is_not_waited_for_and_a_new_one_is() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    publisher.handle(ack(publisher, 1))
    publisher.handle(Workers((1,)))
    assert publisher.is_drained("a")
    publisher.handle(Workers((1, 3)))
    assert not publisher.is_drained("a")


def test_without_known_workers_nothing_is_drained() -> None:
    publisher = connected()
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot())
    assert not publisher.is_drained("a")


def test_an_endpoint_never_published_needs_acks_of_the_first_snapshot() -> None:
    publisher = connected(Workers((1,)), epoch=4)
    publisher.handle(Ack(1, Generation(3, 9), ("old",)))
    assert not publisher.is_drained("old")
    publisher.publish(snapshot(old="draining"))
    assert not publisher.is_drained("old")
    publisher.handle(ack(publisher, 1))
    assert publisher.is_drained("old")


def test_an_endpoint_that_is_ready_again_is_not_drained() -> None:
    publisher = connected(Workers((1,)))
    publisher.publish(snapshot(a="draining"))
    publisher.publish(snapshot(a="ready"))
    publisher.handle(ack(publisher, 1))
    assert not publisher.is_drained("a")


def test_generations_continue_above_the_one_of_the_supervisor() -> None:
    publisher = connected()
    publisher.publish(snapshot(a="ready"))
    publisher.handle(Hello(SUPERVISOR, Generation(7, 3)))
    assert publisher.generation == Generation(8, 1)
    publisher.publish(snapshot(a="draining"))
    assert publisher.generation == Generation(8, 2)
