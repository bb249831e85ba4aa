"""Deployments that cannot fit are rejected with the sums; quotas limit the autoscaler."""

from pathlib import Path
from typing import Any

import pytest

from meshd.capacity import admission, quota
from meshd.capacity.allocate import GIB, Demand
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node
from meshd.reconcile.rollout.stages import max_surge
from meshd.spec.model import Project, Quota, Service
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas
from tests.support.rollouts import rollout

CAN = Capabilities(True, True, True, True, True, True, True)
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
    ("own", "others", "surge", "nodes", "problems"),
    [
        ([wanted("web", 8, 1.0)], [], {}, ONE, []),
        ([wanted("web", 9, 1.0)], [], {}, (), []),
        (
            [wanted("web", 9, 1.0)], [], {}, ONE,
            ["the project needs 9.00 GiB (web 9 × 1.00 GiB), and node one has 4 CPUs and 8.00 GiB; "
             "not all replicas of shop/web fit: a replica needs 1.00 GiB of memory and the "
             "node has 0.00 of 8.00 GiB free"],
        ),
        (
            [wanted("web", 5, 1.0), wanted("log", 3)], [wanted("db", 2, 2.0, project="other")],
            {}, ONE,
            ["the project needs 5.00 GiB (web 5 × 1.00 GiB), and node one has 4 CPUs and 8.00 GiB, "
             "of which other projects use 4.00 GiB; not all replicas of shop/web fit: a "
             "replica needs 1.00 GiB of memory and the node has 0.00 of 8.00 GiB free"],
        ),
        # The sum would fit, the replicas do not.
        (
            [wanted("web", 3, 5.0)], [], {}, TWO,
            ["the project needs 15.00 GiB (web 3 × 5.00 GiB), and 2 nodes have 8 CPUs and 16.00 GiB"
             "; not all replicas of shop/web fit: a replica needs 5.00 GiB of memory and "
             "the emptiest node has 3.00 of 16.00 GiB free"],
        ),
        # Large ones are placed first, so that all fit.
        ([wanted("small", 6, 1.0), wanted("big", 2, 5.0)], [], {}, TWO, []),
        # During a rollout.
        ([wanted("web", 7, 1.0)], [], {"shop/web": 1}, ONE, []),
        (
            [wanted("web", 8, 1.0)], [], {"shop/web": 1}, ONE,
            ["during the rollout the project needs 9.00 GiB (web 9 × 1.00 GiB), and node "
             "one has 4 CPUs and 8.00 GiB; not all replicas of shop/web fit: a replica "
             "needs 1.00 GiB of memory and the node has 0.00 of 8.00 GiB free; use "
             "order: stop-first to avoid this"],
        ),
        # The minimum counts, not the autoscaler's number.
        ([wanted("web", 20, 1.0, spec=SCALED)], [], {}, ONE, []),
        ([wanted("web", 5, resources={"reserved_cpus": 0.8})], [], {}, ONE, []),
        (
            [wanted("web", 6, resources={"reserved_cpus": 0.8})], [], {}, ONE,
            ["the project needs 4.8 CPUs (web 6 × 0.8 CPUs), and node one has 4 CPUs and 8.00 GiB; "
             "not all replicas of shop/web fit: a replica needs 0.8 CPUs and the node has 0 "
             "of 4 free"],
        ),
        (
            [wanted("web", 1, resources={"cpus": 5.0})], [], {}, TWO,
            ["service web: a replica may use 5 CPUs, but the largest node has 4; lower "
             "deploy.resources.limits.cpus"],
        ),
    ],
)  # fmt: skip
def test_a_deployment_that_cannot_fit_is_rejected(
    own: list[DesiredService],
    others: list[DesiredService],
    surge: dict[str, int],
    nodes: tuple[Node, ...],
    problems: list[str],
) -> None:
    assert admission.check(own, others, surge, nodes, CAN) == problems


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
def test_additional_replicas_during_a_rollout(spec: dict[str, Any], expected: int) -> None:
    assert max_surge(wanted("web", 6, spec=spec, rollout=rollout())) == expected


def spec(name: str, **resources: float) -> Service:
    return Service.model_validate({"name": name, "resources": resources})


def test_a_quota_rejects_with_the_sums() -> None:
    limit = Quota.model_validate({"cpus": 2, "memory": "1g", "replicas": 4})
    web, job = spec("web", cpus=0.5, memory=GIB // 4), spec("job", reserved_cpus=1, memory=1)
    assert quota.check(limit, [(web, 2), (job, 1)]) == []
    assert quota.check(limit, [(web, 4), (job, 1)]) == [
        "the project needs 3 CPUs, and its quota is 2 (4 × web, 1 × job)",
        "the project needs 1.00 GiB of memory, and its quota is 1.00 (4 × web, 1 × job)",
        "the project needs 5 replicas, and its quota is 4 (4 × web, 1 × job)",
    ]
    assert quota.check(limit, [(spec("web", memory=1), 1)]) == [
        "service web: quota.cpus is set, but its replicas have no CPU limit; expected "
        "deploy.resources.limits.cpus"
    ]
    assert quota.check(Quota(), [(spec("web"), 1000)]) == []


def test_the_autoscaler_respects_a_quota(tmp_path: Path) -> None:
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
        "but capacity for 3 only: the quota of project shop is 3 replicas"
    ), last.limits
    scene.close()


def test_a_quota_is_shared_by_priority_and_never_below_fixed_numbers() -> None:
    services = [wanted(name, 9, 0.25) for name in ("a", "b")]
    demands = [Demand("shop/a", 9, 2), Demand("shop/b", 9, 1, priority=5)]
    by_memory = quota.allocate_by_quota({"shop": Quota(memory=GIB)}, services, demands)
    assert {key: each.count for key, each in by_memory.items()} == {"shop/a": 2, "shop/b": 2}
    by_number = quota.allocate_by_quota({"shop": Quota(memory=GIB, replicas=1)}, services, demands)
    assert {key: each.count for key, each in by_number.items()} == {"shop/a": 2, "shop/b": 1}
    assert by_number["shop/b"].reason == "the quota of project shop is 1.00 GiB, 1 replicas"
    assert quota.allocate_by_quota({"other": Quota(replicas=1)}, services, demands) == {}


def test_a_number_by_hand_that_the_nodes_have_no_room_for() -> None:
    web, log = wanted("web", 1, 2.0, warm=1), wanted("log", 2, 1.0)
    assert admission.describe_shortage(web, 2, [log], ONE, CAN) == ""
    short = admission.describe_shortage(web, 3, [log], ONE, CAN)
    assert short.startswith("the nodes have room for 2 only: a replica needs 2.00 GiB of memory")
    assert admission.describe_shortage(wanted("web", 1), 4000, [log], ONE, CAN) == ""
