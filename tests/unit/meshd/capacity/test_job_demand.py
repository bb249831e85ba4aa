"""Whether a job fits, as tables; and what a running job takes from deployments and services."""

from pathlib import Path
from typing import Any

import pytest

from meshd.capacity import admission, quota
from meshd.capacity.allocate import GIB
from meshd.capacity.job_demand import (
    JobDemand,
    check_schedules,
    demand_of,
    find_rejection,
    find_shortage,
)
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node
from meshd.spec.model import Project, Quota, Service
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas

CAN = Capabilities(True, True, True, True, True, True, True)
ONE = (Node("one", 4.0, 8 * GIB),)
TWO = (*ONE, Node("two", 2.0, 4 * GIB))


def spec(name: str = "web", **resources: Any) -> Service:
    return Service.model_validate({"name": name, "resources": resources})


def job(id: str = "j", project: str = "shop", **resources: Any) -> JobDemand:
    return JobDemand(id, project, spec(**resources))


def web(count: int, project: str = "shop", **resources: Any) -> tuple[DesiredService, int]:
    made = DesiredService(project=project, spec=spec(**resources), revision="r", desired=count)
    return made, count


G = GIB
FULL = "a job needs 1.00 GiB of memory and the node has 0.50 of 8.00 GiB free"


@pytest.mark.parametrize(
    ("demand", "services", "running", "limit", "nodes", "reason"),
    [
        (job(), [web(9, memory=G)], [], None, ONE, None),
        (job(memory=G), [web(7, memory=G)], [], None, ONE, None),
        (job(memory=G), [web(1, memory=15 * G // 2)], [], None, ONE, FULL),
        (job(memory=G), [web(7, memory=G)], [job("k", memory=G // 2)], None, ONE, FULL),
        (job(memory=G), [web(7, memory=G)], [job("k", memory=G // 2)], None, (), None),
        (job(memory=G), [web(8, memory=G)], [], None, TWO, None),
        (job(reserved_cpus=2), [web(3, reserved_cpus=1)], [], None, ONE,
         "a job needs 2 CPUs and the node has 1 of 4 free"),
        (job(cpus=2), [web(2, cpus=1)], [], Quota(cpus=4), (), None),
        (job(cpus=2), [web(3, cpus=1)], [], Quota(cpus=4, replicas=3), (),
         "the project needs 5 CPUs, and its quota is 4 (3 × web, job j)"),
        (job(cpus=2), [web(1, cpus=1)], [job("k", cpus=1), job("l", "other", cpus=4)],
         Quota(cpus=4), (), None),
        (job(cpus=2), [web(1, cpus=1)], [job("k", cpus=2)], Quota(cpus=4), (),
         "the project needs 5 CPUs, and its quota is 4 (1 × web, job k, job j)"),
        # Jobs do not count as replicas.
        (job(cpus=1), [web(3, cpus=1)], [], Quota(cpus=4, replicas=2), (), None),
    ],
)  # fmt: skip
def test_the_reason_that_a_job_waits(
    demand: JobDemand,
    services: list[tuple[DesiredService, int]],
    running: list[JobDemand],
    limit: Quota | None,
    nodes: tuple[Node, ...],
    reason: str | None,
) -> None:
    assert find_shortage(demand, services, running, limit, nodes, CAN) == reason


@pytest.mark.parametrize(
    ("demand", "limit", "nodes", "reason"),
    [
        (job(memory=8 * G, cpus=4), None, ONE, None),
        (job(memory=9 * G), None, (), None),
        (job(memory=9 * G), None, ONE,
         "a job needs 9.00 GiB of memory and the node has 8.00 of 8.00 GiB free"),
        (job(cpus=5), None, TWO, "it may use 5 CPUs, but the largest node has 4; lower "
         "deploy.resources.limits.cpus of service web"),
        (job(cpus=2), Quota(cpus=1), ONE,
         "the project needs 2 CPUs, and its quota is 1 (job j)"),
        (job(), Quota(memory=G), ONE, "service web: quota.memory is set, but its replicas have no "
         "memory limit; expected deploy.resources.limits.memory"),
    ],
)  # fmt: skip
def test_a_job_that_could_never_run_is_rejected(
    demand: JobDemand, limit: Quota | None, nodes: tuple[Node, ...], reason: str | None
) -> None:
    assert find_rejection(demand, limit, nodes, CAN) == reason


def test_a_scheduled_job_that_can_never_run_is_rejected() -> None:
    service = {
        "name": "nightly", "resources": {"memory": 9 * G},
        "mesh": {"schedule": [{"cron": "@daily", "command": ["work"]}]},
    }  # fmt: skip
    project = Project.model_validate({"name": "shop", "services": [service]})
    (problem,) = check_schedules(project, ONE, CAN)
    assert problem.startswith("service nightly: a scheduled job cannot run: a job needs 9.00")
    assert check_schedules(project, (), CAN) == []


def test_a_running_job_takes_capacity_from_deployments_and_quotas() -> None:
    service, _ = web(8, memory=G)
    running = job("k", memory=G)
    limit = Quota(memory=4 * G)
    (problem,) = admission.check([service], [], {}, ONE, CAN, [demand_of(running, True)])
    assert "of which running jobs use 1.00 GiB" in problem
    assert admission.check([service], [], {}, ONE, CAN) == []
    assert quota.check(limit, [(service.spec, 4)]) == []
    assert quota.check(limit, [(service.spec, 4)], [("k", running.service)]) == [
        "the project needs 5.00 GiB of memory, and its quota is 4.00 (4 × web, job k)"
    ]


@pytest.mark.parametrize(
    ("limit", "most", "reason"),
    [
        (None, 3, "capacity for 3 only: a replica needs 1 CPUs and the node has 0 of 4 free"),
        (Quota(cpus=3), 2, "capacity for 2 only: the quota of project shop is 3 CPUs"),
    ],
)
def test_a_running_job_takes_capacity_from_the_autoscaler(
    tmp_path: Path, limit: Quota | None, most: int, reason: str
) -> None:
    scene = Scene(tmp_path)
    scene.sampler.nodes = ONE
    scene.jobs.append(job("k", reserved_cpus=1))
    service = desired(
        2, scale={"min": 1, "concurrency": 1}, spec={"resources": {"reserved_cpus": 1}}
    )
    project = Project(name="shop", services=(service.spec,), quota=limit)
    scene.store.deploy(project, {"web": "r1"}, "test", "", NOW)
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=90, took=0.1)
    assert scene.wanted() == most
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert last.limits[0].endswith(reason), last.limits
    scene.jobs.clear()
    for _ in range(5):
        scene.second(service, replicas(most), arrivals=90, took=0.1)
    assert scene.wanted() == most + 1
    scene.close()
