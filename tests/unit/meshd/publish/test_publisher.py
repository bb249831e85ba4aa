"""What the publisher makes of acks: when an endpoint is out of use, and above what it goes on."""

from pathlib import Path

from meshd.publish.publisher import Publisher
from proxy.wire.report import Ack, Hello, Message, Workers
from proxy.wire.snapshot import Endpoint, EndpointState, Generation, Service, Snapshot


def snapshot(**states: EndpointState) -> Snapshot:
    members = tuple(Endpoint(id=i, host="h", port=1, state=s) for i, s in sorted(states.items()))
    service = Service(name="shop/web", fingerprint=str(states), endpoints=members)
    return Snapshot(generation=Generation(), services=(service,))


def connected(*told: Message, epoch: int = 1) -> Publisher:
    publisher = Publisher(Path("nowhere"), epoch, lambda message: None)
    for message in (Hello("supervisor"), *told):
        publisher.take(message)
    return publisher


def ack(publisher: Publisher, worker: int, *busy: str, behind: int = 0) -> Ack:
    generation = publisher.generation
    return Ack(worker, Generation(generation.epoch, generation.number - behind), busy)


def test_equal_content_is_published_once_and_each_change_goes_one_up() -> None:
    publisher = connected()
    assert publisher.publish(snapshot(a="ready"))
    assert not publisher.publish(snapshot(a="ready"))
    assert publisher.publish(snapshot(a="draining"))
    assert publisher.generation == Generation(1, 2)


def test_an_endpoint_is_drained_once_every_live_worker_says_so() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    assert not publisher.drained("a")
    publisher.take(ack(publisher, 1))
    assert not publisher.drained("a")
    publisher.take(ack(publisher, 2, "a"))
    assert not publisher.drained("a")
    publisher.take(ack(publisher, 2))
    assert publisher.drained("a")


def test_an_ack_of_an_older_generation_proves_nothing() -> None:
    publisher = connected(Workers((1,)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    publisher.take(ack(publisher, 1, behind=1))
    assert not publisher.drained("a")


def test_a_worker_that_ended_is_not_waited_for_and_a_new_one_is() -> None:
    publisher = connected(Workers((1, 2)))
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot(a="draining"))
    publisher.take(ack(publisher, 1))
    publisher.take(Workers((1,)))
    assert publisher.drained("a")
    publisher.take(Workers((1, 3)))
    assert not publisher.drained("a")


def test_without_a_word_from_any_worker_nothing_is_drained() -> None:
    publisher = connected()
    publisher.publish(snapshot(a="ready"))
    publisher.publish(snapshot())
    assert not publisher.drained("a")


def test_what_this_process_never_published_needs_acks_of_its_first_snapshot() -> None:
    publisher = connected(Workers((1,)), epoch=4)
    publisher.take(Ack(1, Generation(3, 9), ("old",)))
    assert not publisher.drained("old")
    publisher.publish(snapshot(old="draining"))
    assert not publisher.drained("old")
    publisher.take(ack(publisher, 1))
    assert publisher.drained("old")


def test_an_endpoint_that_is_ready_again_is_in_use() -> None:
    publisher = connected(Workers((1,)))
    publisher.publish(snapshot(a="draining"))
    publisher.publish(snapshot(a="ready"))
    publisher.take(ack(publisher, 1))
    assert not publisher.drained("a")


def test_it_goes_on_above_whatever_the_supervisor_holds() -> None:
    publisher = connected()
    publisher.publish(snapshot(a="ready"))
    publisher.take(Hello("supervisor", Generation(7, 3)))
    assert publisher.generation == Generation(8, 1)
    publisher.publish(snapshot(a="draining"))
    assert publisher.generation == Generation(8, 2)
