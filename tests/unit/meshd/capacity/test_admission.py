"""What cannot fit is refused with the sum and the place; quotas are held."""

from pathlib import Path
from typing import Any

import pytest

from meshd.capacity.admission import refusals
from meshd.capacity.allocate import GIB, Demand
from meshd.capacity.quota import held
from meshd.capacity.quota import refusals as over
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node
from meshd.reconcile.rollout.stages import max_surge
from meshd.spec.model import Project, Quota, Service
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas
from tests.support.rollouts import rollout

CAN = Capabilities(True, True, True, True, True, True, True, True)
ONE = (Node("one", 4.0, 8 * GIB),)
SCALED = {"mesh": {"scale": {"min": 2, "max": 20}}}
TWO = (Node("one", 4.0, 8 * GIB), Node("two", 4.0, 8 * GIB))


def wanted(name: str, count: int, memory: float = 0.0, **more: Any) -> DesiredService:
    resources = {"memory": int(memory * GIB), **more.pop("resources", {})}
    spec = {"name": name, "resources": resources, **more.pop("spec", {})}
    made = Service.model_validate(spec)
    project = more.pop("project", "shop")
    return DesiredService(project=project, spec=made, revision="r", desired=count, **more)


@pytest.mark.parametrize(
    ("ours", "others", "more", "nodes", "told"),
    [
        ([wanted("web", 8, 1.0)], [], {}, ONE, []),
        ([wanted("web", 9, 1.0)], [], {}, (), []),
        (
            [wanted("web", 9, 1.0)], [], {}, ONE,
            ["the project takes 9.00 GiB (web 9 × 1.00 GiB), and node one has 4 CPUs and 8.00 GiB; "
             "not all of shop/web has a place, because a replica takes 1.00 GiB of memory and the "
             "node has 0.00 of 8.00 GiB left"],
        ),
        (
            [wanted("web", 5, 1.0), wanted("log", 3)], [wanted("db", 2, 2.0, project="other")],
            {}, ONE,
            ["the project takes 5.00 GiB (web 5 × 1.00 GiB), and node one has 4 CPUs and 8.00 GiB, "
             "of which other projects take 4.00 GiB; not all of shop/web has a place, because a "
             "replica takes 1.00 GiB of memory and the node has 0.00 of 8.00 GiB left"],
        ),
        # The sum would fit, the pieces do not.
        (
            [wanted("web", 3, 5.0)], [], {}, TWO,
            ["the project takes 15.00 GiB (web 3 × 5.00 GiB), and 2 nodes have 8 CPUs and 16.00 GiB"
             "; not all of shop/web has a place, because a replica takes 5.00 GiB of memory and "
             "the emptiest node has 3.00 of 16.00 GiB left"],
        ),
        # Big ones first, so that what can be placed is.
        ([wanted("small", 6, 1.0), wanted("big", 2, 5.0)], [], {}, TWO, []),
        # On the way of a rollout.
        ([wanted("web", 7, 1.0)], [], {"shop/web": 1}, ONE, []),
        (
            [wanted("web", 8, 1.0)], [], {"shop/web": 1}, ONE,
            ["on the way of the rollout the project takes 9.00 GiB (web 9 × 1.00 GiB), and node "
             "one has 4 CPUs and 8.00 GiB; not all of shop/web has a place, because a replica "
             "takes 1.00 GiB of memory and the node has 0.00 of 8.00 GiB left; have it "
             "done with order: stop-first"],
        ),
        # The autoscaler's number is not what counts, its lowest is.
        ([wanted("web", 20, 1.0, spec=SCALED)], [], {}, ONE, []),
        ([wanted("web", 5, resources={"reserved_cpus": 0.8})], [], {}, ONE, []),
        (
            [wanted("web", 6, resources={"reserved_cpus": 0.8})], [], {}, ONE,
            ["the project takes 4.8 CPUs (web 6 × 0.8 CPUs), and node one has 4 CPUs and 8.00 GiB; "
             "not all of shop/web has a place, because a replica takes 0.8 CPUs and the node has 0 "
             "of 4 left"],
        ),
        (
            [wanted("web", 1, resources={"cpus": 5.0})], [], {}, TWO,
            ["service web: a replica may use 5 CPUs, and the largest node has 4; lower "
             "deploy.resources.limits.cpus"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_fit(
    ours: list[DesiredService],
    others: list[DesiredService],
    more: dict[str, int],
    nodes: tuple[Node, ...],
    told: list[str],
) -> None:
    assert refusals(ours, others, more, nodes, CAN) == told


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, 1),
        ({"update": {"parallelism": 3}}, 3),
        ({"update": {"order": "stop-first"}}, 0),
        ({"mesh": {"rollout": {"strategy": "blue-green"}}}, 6),
        ({"mesh": {"rollout": {"strategy": "blue-green", "max_surge": "2"}}}, 2),
        ({"mesh": {"rollout": {"strategy": "canary", "steps": ["50%"]}}}, 3),
    ],
)
def test_replicas_beside_the_old_ones_on_the_way(spec: dict[str, Any], expected: int) -> None:
    assert max_surge(wanted("web", 6, spec=spec, rollout=rollout())) == expected


def spec(name: str, **resources: float) -> Service:
    return Service.model_validate({"name": name, "resources": resources})


def test_a_quota_refuses_with_the_sum() -> None:
    quota = Quota.model_validate({"cpus": 2, "memory": "1g", "replicas": 4})
    web, job = spec("web", cpus=0.5, memory=GIB // 4), spec("job", reserved_cpus=1, memory=1)
    assert over(quota, [(web, 2), (job, 1)]) == []
    assert over(quota, [(web, 4), (job, 1)]) == [
        "the project takes 3 CPUs, and its quota is 2 (4 × web, 1 × job)",
        "the project takes 1.00 GiB of memory, and its quota is 1.00 (4 × web, 1 × job)",
        "the project takes 5 replicas, and its quota is 4 (4 × web, 1 × job)",
    ]
    assert over(quota, [(spec("web", memory=1), 1)]) == [
        "service web: quota.cpus is set, and its replicas have no CPU limit; expected "
        "deploy.resources.limits.cpus"
    ]
    assert over(Quota(), [(spec("web"), 1000)]) == []


def test_a_quota_is_held_by_the_autoscaler(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.sampler.nodes = ONE
    service = desired(2, scale={"min": 1, "concurrency": 1})
    project = Project(name="shop", services=(service.spec,), quota=Quota(replicas=3))
    scene.store.deploy(project, {"web": "r1"}, "test", "", NOW)
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=90, took=0.1)
    assert scene.wanted() == 3
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert last.limits[0].endswith(
        "room for 3, because of the quota of project shop (3 replicas)"
    ), last.limits
    scene.close()


def test_what_a_quota_leaves_goes_by_priority_and_never_below_what_is_fixed() -> None:
    services = [wanted(name, 9, 0.25) for name in ("a", "b")]
    wants = [Demand("shop/a", 9, 2), Demand("shop/b", 9, 1, priority=5)]
    by_memory = held({"shop": Quota(memory=GIB)}, services, wants)
    assert {key: grant.count for key, grant in by_memory.items()} == {"shop/a": 2, "shop/b": 2}
    by_number = held({"shop": Quota(memory=GIB, replicas=1)}, services, wants)
    assert {key: grant.count for key, grant in by_number.items()} == {"shop/a": 2, "shop/b": 1}
    assert by_number["shop/b"].why == "because of the quota of project shop (1.00 GiB, 1 replicas)"
    assert held({"other": Quota(replicas=1)}, services, wants) == {}
