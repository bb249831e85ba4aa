"""Whether there is room for a job, as tables; and what is left for others while one runs."""

from pathlib import Path
from typing import Any

import pytest

from meshd.capacity.admission import refusals as unfit
from meshd.capacity.allocate import GIB
from meshd.capacity.job_demand import JobDemand, lacking, refusals, refused, want
from meshd.capacity.quota import refusals as over
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node
from meshd.spec.model import Project, Quota, Service
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas

CAN = Capabilities(True, True, True, True, True, True, True, True)
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
FULL = "because a job takes 1.00 GiB of memory and the node has 0.50 of 8.00 GiB left"


@pytest.mark.parametrize(
    ("burden", "services", "running", "quota", "nodes", "why"),
    [
        (job(), [web(9, memory=G)], [], None, ONE, ""),
        (job(memory=G), [web(7, memory=G)], [], None, ONE, ""),
        (job(memory=G), [web(1, memory=15 * G // 2)], [], None, ONE, FULL),
        (job(memory=G), [web(7, memory=G)], [job("k", memory=G // 2)], None, ONE, FULL),
        (job(memory=G), [web(7, memory=G)], [job("k", memory=G // 2)], None, (), ""),
        (job(memory=G), [web(8, memory=G)], [], None, TWO, ""),
        (job(reserved_cpus=2), [web(3, reserved_cpus=1)], [], None, ONE,
         "because a job takes 2 CPUs and the node has 1 of 4 left"),
        (job(cpus=2), [web(2, cpus=1)], [], Quota(cpus=4), (), ""),
        (job(cpus=2), [web(3, cpus=1)], [], Quota(cpus=4, replicas=3), (),
         "the project takes 5 CPUs, and its quota is 4 (3 × web, job j)"),
        (job(cpus=2), [web(1, cpus=1)], [job("k", cpus=1), job("l", "other", cpus=4)],
         Quota(cpus=4), (), ""),
        (job(cpus=2), [web(1, cpus=1)], [job("k", cpus=2)], Quota(cpus=4), (),
         "the project takes 5 CPUs, and its quota is 4 (1 × web, job k, job j)"),
        # Replicas are counted, jobs are none of them.
        (job(cpus=1), [web(3, cpus=1)], [], Quota(cpus=4, replicas=2), (), ""),
    ],
)  # fmt: skip
def test_what_a_job_waits_for(
    burden: JobDemand,
    services: list[tuple[DesiredService, int]],
    running: list[JobDemand],
    quota: Quota | None,
    nodes: tuple[Node, ...],
    why: str,
) -> None:
    assert lacking(burden, services, running, quota, nodes, CAN) == why


@pytest.mark.parametrize(
    ("burden", "quota", "nodes", "why"),
    [
        (job(memory=8 * G, cpus=4), None, ONE, ""),
        (job(memory=9 * G), None, (), ""),
        (job(memory=9 * G), None, ONE,
         "because a job takes 9.00 GiB of memory and the node has 8.00 of 8.00 GiB left"),
        (job(cpus=5), None, TWO, "it may use 5 CPUs, and the largest node has 4; lower "
         "deploy.resources.limits.cpus of service web"),
        (job(cpus=2), Quota(cpus=1), ONE,
         "the project takes 2 CPUs, and its quota is 1 (job j)"),
        (job(), Quota(memory=G), ONE, "service web: quota.memory is set, and its replicas have no "
         "memory limit; expected deploy.resources.limits.memory"),
    ],
)  # fmt: skip
def test_what_could_never_run_is_refused(
    burden: JobDemand, quota: Quota | None, nodes: tuple[Node, ...], why: str
) -> None:
    assert refused(burden, quota, nodes, CAN) == why


def test_a_deployment_that_schedules_what_can_never_run_is_refused() -> None:
    service = {
        "name": "nightly", "resources": {"memory": 9 * G},
        "mesh": {"schedule": [{"cron": "@daily", "command": ["work"]}]},
    }  # fmt: skip
    project = Project.model_validate({"name": "shop", "services": [service]})
    (told,) = refusals(project, ONE, CAN)
    assert told.startswith("service nightly: a scheduled job cannot run: because a job takes 9.00")
    assert refusals(project, (), CAN) == []


def test_deployments_and_numbers_by_hand_have_so_much_less_while_one_runs() -> None:
    service, _ = web(8, memory=G)
    running = job("k", memory=G)
    quota = Quota(memory=4 * G)
    (told,) = unfit([service], [], {}, ONE, CAN, [want(running, True)])
    assert "of which jobs take 1.00 GiB" in told
    assert unfit([service], [], {}, ONE, CAN) == []
    assert over(quota, [(service.spec, 4)]) == []
    assert over(quota, [(service.spec, 4)], [("k", running.service)]) == [
        "the project takes 5.00 GiB of memory, and its quota is 4.00 (4 × web, job k)"
    ]


@pytest.mark.parametrize(
    ("quota", "most", "why"),
    [
        (None, 3, "room for 3, because a replica takes 1 CPUs and the node has 0 of 4 left"),
        (Quota(cpus=3), 2, "room for 2, because of the quota of project shop (3 CPUs)"),
    ],
)
def test_the_autoscaler_has_so_much_less_while_one_runs(
    tmp_path: Path, quota: Quota | None, most: int, why: str
) -> None:
    scene = Scene(tmp_path)
    scene.sampler.nodes = ONE
    scene.jobs.append(job("k", reserved_cpus=1))
    service = desired(
        2, scale={"min": 1, "concurrency": 1}, spec={"resources": {"reserved_cpus": 1}}
    )
    project = Project(name="shop", services=(service.spec,), quota=quota)
    scene.store.deploy(project, {"web": "r1"}, "test", "", NOW)
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=90, took=0.1)
    assert scene.wanted() == most
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert last.limits[0].endswith(why), last.limits
    scene.jobs.clear()
    for _ in range(5):
        scene.second(service, replicas(most), arrivals=90, took=0.1)
    assert scene.wanted() == most + 1
    scene.close()
