"""Deltas between snapshots: they restore the snapshot, and cost as much as the change."""

import itertools
import random

import pytest

from proxy.wire.codec import Decoder, encode
from proxy.wire.delta import SnapshotDelta, apply_changes, find_changes
from proxy.wire.report import Publish, PublishDelta, make_publication, read_publication
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    Listener,
    MissingService,
    Route,
    Service,
    Snapshot,
    SnapshotUpdate,
    Target,
    apply,
    difference,
)


def endpoint(number: int, **fields: float) -> Endpoint:
    return Endpoint(f"e{number:03}", "10.0.0.1", 8000 + number, **fields)  # type: ignore[arg-type]


def service(name: str, *endpoints: Endpoint, allow: tuple[str, ...] | None = None) -> Service:
    return Service(name, f"{name}{allow}{endpoints}", endpoints, allow)


def snapshot(number: int, *services: Service, paths: str = "", tokens: str = "") -> Snapshot:
    routes = tuple(Route(path, (Target("a"),), path=f"/{path}") for path in paths)
    return Snapshot(Generation(1, number), services, routes, credentials=dict.fromkeys(tokens, "a"))


def sent(old: Snapshot, new: Snapshot) -> SnapshotDelta:
    """Return the delta after it was sent, which restores the new snapshot."""
    (message,) = Decoder().feed(encode(make_publication(old, new, deltas=True)))
    assert isinstance(message, PublishDelta)
    assert read_publication(old, message) == new
    return message.delta


def test_of_a_service_only_the_changed_endpoints_are_sent() -> None:
    a, many = service("a", endpoint(1)), [endpoint(number) for number in range(20)]
    old = snapshot(1, a, service("b", *many))
    changed = [endpoint(0, weight=2.0), *many[2:], endpoint(20)]

    delta = sent(old, snapshot(2, a, service("b", *changed)))

    assert delta.services == ()
    (only,) = delta.endpoints
    assert [each.id for each in only.endpoints] == ["e000", "e020"]
    assert only.removed == ("e001",)


def test_deltas_and_updates_have_every_field_of_a_snapshot() -> None:
    fields = set(Snapshot.__struct_fields__)
    assert fields <= set(SnapshotDelta.__struct_fields__)
    assert fields <= set(SnapshotUpdate.__struct_fields__)
    old = snapshot(1)
    new = Snapshot(
        Generation(1, 2), peers={"w1": 1}, peers_valid_from={"w1": 9}, requires_peers=True
    )
    assert sent(old, new).peers == {"w1": 1}
    assert sent(old, new).peers_valid_from == {"w1": 9}
    assert sent(new, snapshot(3)).requires_peers is False
    assert apply(old, difference(old, new)) == new


def test_a_service_with_other_settings_is_sent_as_a_whole() -> None:
    old = snapshot(1, service("a", endpoint(1)), service("b", endpoint(2)))
    new = snapshot(2, service("a", endpoint(1), allow=("x",)), service("c"))
    delta = sent(old, new)
    assert [each.name for each in delta.services] == ["a", "c"]
    assert delta.removed == ("b",)
    assert delta.endpoints == ()


def test_endpoints_in_another_order_are_not_lost() -> None:
    old = snapshot(1, service("a", endpoint(2), endpoint(1)))
    delta = sent(old, snapshot(2, service("a", endpoint(3), endpoint(1))))
    assert [each.name for each in delta.services] == ["a"]


@pytest.mark.parametrize(
    ("before", "after", "start", "count", "put"),
    [
        ("abcd", "abxcd", 2, 0, "x"),
        ("abcd", "abd", 2, 1, ""),
        ("abcd", "xbcd", 0, 1, "x"),
        ("", "ab", 0, 0, "ab"),
        ("aaa", "aa", 2, 1, ""),
        ("aa", "aaa", 2, 0, "a"),
    ],
)
def test_routes_are_replaced_in_place(
    before: str, after: str, start: int, count: int, put: str
) -> None:
    delta = sent(snapshot(1, paths=before), snapshot(2, paths=after))
    assert delta.routes is not None
    assert (delta.routes.start, delta.routes.count) == (start, count)
    assert [each.id for each in delta.routes.routes] == list(put)


def test_mappings_and_short_fields() -> None:
    old, new = snapshot(1, tokens="abc"), snapshot(2, tokens="bcd")
    delta = sent(old, new)
    assert delta.credentials is not None
    assert (delta.credentials.entries, delta.credentials.removed) == ({"d": "a"}, ("a",))
    assert (delta.routes, delta.listeners, delta.callers) == (None, None, None)
    listening = Snapshot(Generation(1, 3), listeners=(Listener(":80"),), via=True)
    delta = sent(new, listening)
    assert (delta.listeners, delta.via) == ((Listener(":80"),), True)
    assert sent(listening, Snapshot(Generation(1, 4))).listeners == ()


def test_a_receiver_without_the_snapshot_before_asks_for_all_of_it() -> None:
    first, second, third = (snapshot(number, tokens="ab"[:number]) for number in (1, 2, 3))
    delta = find_changes(second, third)
    for held in (None, first, third):
        with pytest.raises(MissingService):
            apply_changes(held, delta)
    assert isinstance(make_publication(None, third, deltas=True), Publish)
    old_form = make_publication(second, third, deltas=False)
    assert isinstance(old_form, Publish)
    assert read_publication(second, old_form) == third


def test_random_changes_restore_the_snapshot() -> None:
    dice = random.Random(7)

    def make(number: int) -> Snapshot:
        services = [
            service(name, *(endpoint(n) for n in sorted(dice.sample(range(8), dice.randint(0, 5)))),
                    allow=dice.choice([None, None, ("x",)]))
            for name in sorted(dice.sample("abcdef", dice.randint(0, 6)))
        ]  # fmt: skip
        paths = "".join(sorted(dice.sample("abcdefgh", dice.randint(0, 8))))
        return snapshot(number, *services, paths=paths, tokens="".join(dice.sample("tuvw", 2)))

    snapshots = [make(number) for number in range(200)]
    for old, new in itertools.pairwise(snapshots):
        sent(old, new)


def test_the_size_of_a_delta_is_that_of_the_change() -> None:
    def size(services: int, replicas: int) -> int:
        names = [f"s{number:04}" for number in range(services)]
        made = [service(name, *(endpoint(n) for n in range(replicas))) for name in names]
        tokens = {f"t{number}": "a" for number in range(services * replicas)}
        routes = tuple(Route(name, (Target(name),)) for name in names)
        old = Snapshot(Generation(1, 1), tuple(made), routes, credentials=tokens)
        first = service(names[0], *(endpoint(n) for n in range(replicas + 1)))
        first = Service(first.name, "changed", first.endpoints)
        new = Snapshot(
            Generation(1, 2), (first, *made[1:]), routes, credentials={**tokens, "n": ""}
        )
        return len(encode(make_publication(old, new, deltas=True)))

    assert size(400, 80) == size(10, 80) == size(10, 8)
