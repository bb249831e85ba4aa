"""The desired state: stored projects, and services adopted from others' containers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.model.desired import DesiredService
from meshd.model.rollout import Override, RolloutState
from meshd.model.runtime import Node, ObservedReplica, ReplicaState
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.spec.labels import CLONE_OF
from meshd.spec.model import Project, Service
from meshd.store.store import Store

THEIRS = ObservedReplica(
    name="theirs", runtime_id="1", project="app", service="hello", revision="x",
    state=ReplicaState.RUNNING, managed=False, port=7000,
    labels={"mesh.project": "app", "mesh.service": "hello", "mesh.scale.max": "4"},
)  # fmt: skip
COPY = replace(THEIRS, name="copy", managed=True, labels={CLONE_OF: "theirs"})
STOPPED = replace(THEIRS, state=ReplicaState.EXITED, exit_code=0)
KILLED = replace(THEIRS, state=ReplicaState.EXITED, exit_code=137, finished_at=9.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    store.open()
    yield store
    store.close()


def only_service(builder: DesiredStateBuilder, *listed: ObservedReplica) -> DesiredService:
    (service,) = builder.desired({seen.name: seen for seen in listed}, 10.0).services
    return service


@pytest.mark.parametrize(
    ("listed", "count"),
    [
        ((THEIRS,), 1),
        ((THEIRS, replace(THEIRS, name="third")), 2),
        ((KILLED,), 1),
        ((replace(KILLED, finished_at=-9.0),), 0),
        ((KILLED, replace(COPY, state=ReplicaState.EXITED)), 0),
        ((STOPPED,), 0),
        ((STOPPED, COPY), 1),
        ((STOPPED, replace(COPY, state=ReplicaState.STOPPING)), 0),
    ],
)
def test_replica_count_of_an_adopted_service(
    store: Store, listed: tuple[ObservedReplica, ...], count: int
) -> None:
    service = only_service(DesiredStateBuilder(store), *listed)
    assert (service.key, service.adopted, service.template) == ("app/hello", True, "theirs")
    assert service.desired == count
    assert service.spec.port == 7000


STOPPING = replace(THEIRS, state=ReplicaState.STOPPING)
LEAVING = replace(COPY, state=ReplicaState.STOPPING)
THIRD = replace(THEIRS, name="third")


@pytest.mark.parametrize(
    ("listed", "stopping", "count"),
    [
        ((STOPPING, THIRD), (), 1),
        ((replace(STOPPED, finished_at=5.0), THIRD), (), 1),
        ((replace(STOPPED, finished_at=5.0), THIRD, COPY), (), 2),
        ((replace(STOPPED, finished_at=-5.0), THIRD), (), 3),
        ((KILLED, THIRD), (), 3),
        ((THEIRS, LEAVING), (), 1),
        ((THEIRS, LEAVING), ("copy",), 3),
        ((STOPPING, LEAVING), (), 0),
    ],
    ids=[
        "stopping", "just stopped", "just stopped, a copy runs", "stopped long ago", "killed",
        "others stop a copy", "meshd stops a copy", "all stopping",
    ],
)  # fmt: skip
def test_no_copy_starts_while_others_stop_containers(
    store: Store, listed: tuple[ObservedReplica, ...], stopping: tuple[str, ...], count: int
) -> None:
    store.set_override("app/hello", Override(3, 0.0))
    builder = DesiredStateBuilder(store)
    listing = {seen.name: seen for seen in listed}
    (service,) = builder.desired(listing, 10.0, frozenset(stopping)).services
    assert service.desired == count


def test_the_newest_container_is_the_template(store: Store) -> None:
    old = replace(THEIRS, created_at=1.0, revision="x")
    new = replace(THEIRS, name="zz", created_at=2.0, revision="y")
    ended = replace(THEIRS, name="zzz", created_at=3.0, state=ReplicaState.EXITED)
    service = only_service(DesiredStateBuilder(store), old, new, ended)
    assert (service.template, service.revision) == ("zz", "y")


def test_copies_without_their_template_are_removed(store: Store) -> None:
    desired = DesiredStateBuilder(store).desired({"copy": COPY}, 10.0)
    assert desired.services == ()
    assert desired.projects == {"app"}


def test_a_container_with_invalid_labels_is_left_alone(store: Store) -> None:
    wrong = replace(THEIRS, labels={"mesh.service": "hello", "mesh.scale.max": "many"})
    builder = DesiredStateBuilder(store)
    assert builder.desired({"theirs": wrong}, 10.0).services == ()
    assert builder.desired({"theirs": wrong}, 11.0).services == ()
    (problem,) = builder.problems
    assert problem.startswith("left alone: container theirs: label mesh.scale.max")
    assert only_service(builder, THEIRS).desired == 1
    assert builder.problems == frozenset()


def test_a_route_that_two_applications_claim_is_a_problem(store: Store) -> None:
    builder = DesiredStateBuilder(store)
    ours = replace(THEIRS, labels={**THEIRS.labels, "mesh.route": "/hello"})
    other = replace(ours, name="other", labels={**ours.labels, "mesh.project": "blog"})
    builder.desired({"theirs": ours, "other": other}, 10.0)
    (problem,) = builder.problems
    assert "route /hello of" in problem
    assert "app/hello" in problem
    assert "blog/hello" in problem
    builder.desired({"theirs": ours}, 11.0)
    assert builder.problems == frozenset()


def test_an_override_ends_at_its_time(store: Store) -> None:
    project = Project(name="shop", services=(Service(name="web", replicas=2),))
    store.deploy(project, {"web": "r1"}, "me", "", 1.0)
    builder = DesiredStateBuilder(store)
    store.set_override("shop/web", Override(5, 11.0))
    assert only_service(builder).desired == 5
    (later,) = builder.desired({}, 12.0).services
    assert later.desired == 2


def test_a_rolled_back_service_is_desired_at_its_previous_revision(store: Store) -> None:
    for revision, image in (("r1", "good"), ("r2", "bad")):
        service = Service(name="web", image=image)
        project = Project(name="shop", services=(service,))
        store.deploy(project, {"web": revision}, "me", "", 1.0)
        store.finish(
            "shop/web",
            RolloutState.DONE if image == "good" else RolloutState.ROLLED_BACK,
            "why",
            2.0,
        )
    service_now = only_service(DesiredStateBuilder(store))
    assert (service_now.revision, service_now.spec.image) == ("r1", "good")
    store.leave("shop")
    assert only_service(DesiredStateBuilder(store)).desired == 0


def test_a_global_service_has_a_replica_for_each_node(store: Store) -> None:
    """While no node is known, it has as many as before. One node leaves before the successor of
    its replica starts."""
    service = Service(name="agent", image="a", mode="global", placement=("node.hostname!=m1",))
    store.deploy(Project(name="shop", services=(service,)), {"agent": "r1"}, "me", "", 1.0)
    nodes = [Node(name, 1.0, 1) for name in ("m1", "w1", "w2", "w3")]
    found = only_service(DesiredStateBuilder(store, False, lambda: nodes))
    assert (found.desired, found.stops_first) == (3, True)
    running = [
        ObservedReplica(name, name, "shop", "agent", "r1", ReplicaState.RUNNING, managed=True)
        for name in ("a", "b")
    ]
    assert only_service(DesiredStateBuilder(store, False, tuple), *running).desired == 2
    assert only_service(DesiredStateBuilder(store, False, tuple)).desired == 1
    assert only_service(DesiredStateBuilder(store)).desired == 1
    store.leave("shop")
    assert only_service(DesiredStateBuilder(store, False, lambda: nodes)).desired == 0


DATA = {"volumes": [{"type": "volume", "source": "db", "target": "/data"}]}
STORED_BEFORE = {**DATA, "update": {"order": "start-first"}}


@pytest.mark.parametrize(
    ("previous", "failed", "stops_first"),
    [
        ({}, {}, False),
        (DATA, DATA, True),
        (STORED_BEFORE, DATA, True),
        (STORED_BEFORE, {}, True),
        (DATA, STORED_BEFORE, False),
        ({}, {"update": {"order": "stop-first"}}, True),
    ],
)
def test_the_order_of_a_return_to_the_previous_revision(
    store: Store, previous: dict[str, object], failed: dict[str, object], stops_first: bool
) -> None:
    """Earlier versions stored `start-first` where the file set no order."""
    for revision, fields in (("r1", previous), ("r2", failed)):
        service = Service.model_validate({"name": "web", "image": "app", **fields})
        project = Project(name="shop", services=(service,))
        store.deploy(project, {"web": revision}, "me", "", 1.0)
        assert only_service(DesiredStateBuilder(store)).order is None
        state = RolloutState.DONE if revision == "r1" else RolloutState.ROLLED_BACK
        store.finish("shop/web", state, "why", 2.0)
    service_now = only_service(DesiredStateBuilder(store))
    assert (service_now.revision, service_now.stops_first) == ("r1", stops_first)


def test_a_service_with_data_has_no_warm_replicas(store: Store) -> None:
    scale = {"mesh": {"scale": {"min": 1, "max": 9, "rps": 5, "warm": 2}}}
    for fields, warm in ((DATA, 0), (STORED_BEFORE, 2)):
        web = Service.model_validate({"name": "web", "image": "app", **scale, **fields})
        store.deploy(Project(name="shop", services=(web,)), {"web": "r1"}, "me", "", 1.0)
        assert only_service(DesiredStateBuilder(store, True)).warm == warm


@pytest.mark.parametrize(
    ("setting", "can_pause", "learned", "warm"),
    [(2, True, 5, 2), ("auto", True, 5, 5), ("auto", True, None, 0), ("auto", False, 5, 0)],
)
def test_number_of_warm_replicas(
    store: Store, setting: object, can_pause: bool, learned: int | None, warm: int
) -> None:
    scale = {"min": 1, "max": 9, "rps": 5, "warm": setting}
    web = Service.model_validate({"name": "web", "image": "app", "mesh": {"scale": scale}})
    store.deploy(Project(name="shop", services=(web,)), {"web": "r1"}, "me", "", 1.0)
    if learned is not None:
        store.set_scaling({"shop/web": (1, {}, learned)}, 2.0)
    assert only_service(DesiredStateBuilder(store, can_pause)).warm == warm


def test_a_held_service_desires_no_replicas_until_every_hold_ends(store: Store) -> None:
    web, other = Service(name="web", image="a", replicas=2), Service(name="other", image="a")
    project = Project(name="shop", services=(web, other))
    store.deploy(project, {"web": "r1", "other": "r1"}, "ada", "", 1.0, "deploy")
    builder = DesiredStateBuilder(store)

    def counts() -> list[int]:
        return [service.desired for service in builder.desired({}, 10.0).services]

    assert counts() == [2, 1]
    builder.hold(["shop/web"])
    builder.hold(["shop/web"])
    assert counts() == [0, 1]
    builder.release(["shop/web"])
    assert counts() == [0, 1]
    builder.release(["shop/web"])
    assert counts() == [2, 1]
