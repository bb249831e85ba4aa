"""A replica from the JSON of a real Swarm (`recorded.json`), for each state of its task."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshd.model.runtime import Availability, ContainerHealth, ReplicaState
from meshd.runtime.swarm.observe import (
    SwarmNode,
    TaskHistory,
    available_spec,
    describe_error,
    is_missing_image,
    is_replica,
    lacks_kept_port,
    observe,
    parse_node,
    reserved_by_node,
    task_of,
)
from meshd.runtime.swarm.service_spec import STOPPED, kept_port_spec
from meshd.spec import labels

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded.json").read_text())
MANAGER = parse_node(RECORDED["node"])
NODES = {MANAGER.id: MANAGER}
MARKS = labels.make_labels("p", "web", "rev1", "p-web-1", 8080, "mesh-a")
STATES = ReplicaState


def service(**marks: str) -> dict[str, Any]:
    found = copy.deepcopy(RECORDED["service"])
    found["Spec"]["Labels"] = {**MARKS, **marks}
    return dict(found)


def task(name: str, **status: object) -> dict[str, Any]:
    found = copy.deepcopy(RECORDED[name])
    found["Status"] |= status
    return dict(found)


def test_a_node_has_its_address_and_labels() -> None:
    assert (
        SwarmNode(
            id="zhmq347m6ochgl430j7qupkzg",
            name="m1",
            address="10.77.0.1",
            role="leader",
            ready=True,
            availability="active",
            cpus=2.0,
            memory=25276063744,
            labels={"zone": "north"},
            engine=MANAGER.engine,
            platform="linux/x86_64",
        )
        == MANAGER
    )
    assert MANAGER.takes_tasks


def test_a_node_says_until_when_it_is_drained() -> None:
    spec = RECORDED["node"]["Spec"]
    draining = available_spec(spec, Availability.PAUSE, 1234.5)
    assert draining is not None
    info = {**copy.deepcopy(RECORDED["node"]), "Spec": draining}
    node = parse_node(info).as_node((0.5, 2**20))
    assert (node.availability, node.drain_until, node.labels) == (
        Availability.PAUSE, 1234.0, MANAGER.labels,
    )  # fmt: skip
    assert (node.reserved_cpus, node.reserved_memory, node.role) == (0.5, 2**20, "leader")
    assert not node.takes_replicas
    assert available_spec(draining, Availability.ACTIVE, 0.0) == {
        **spec, "Availability": "active", "Labels": spec.get("Labels") or {},
    }  # fmt: skip
    assert available_spec(spec, Availability.ACTIVE, 0.0) is None
    draining["Labels"]["mesh.drain-until"] = "soon"
    assert parse_node({**info, "Spec": draining}).drain_until == 0.0


def test_tasks_that_run_reserve_a_part_of_their_node() -> None:
    reserved = {"Reservations": {"NanoCPUs": 500_000_000, "MemoryBytes": 2**20}}
    tasks = [task("running"), task("running"), task("stopped"), task("done")]
    for each in tasks:
        each["Spec"] = {**each["Spec"], "Resources": reserved}
    tasks[1]["DesiredState"] = "shutdown"
    assert reserved_by_node(tasks) == {MANAGER.id: (0.5, 2**20)}


@pytest.mark.parametrize("unknown", ["0.0.0.0", "127.0.0.1", ""])
def test_a_manager_that_does_not_know_its_address_has_that_of_the_raft(unknown: str) -> None:
    info = copy.deepcopy(RECORDED["node"])
    info["Status"]["Addr"] = unknown
    assert parse_node(info).address == "10.77.0.1"
    info["ManagerStatus"]["Addr"] = "[fd00::1]:2377"
    assert parse_node(info).address == "fd00::1"


def test_a_drained_or_absent_node_takes_no_tasks() -> None:
    assert not replace(MANAGER, availability="drain").takes_tasks
    assert not replace(MANAGER, ready=False).takes_tasks


def test_a_running_replica_is_reached_by_its_node() -> None:
    seen = observe(service(), [task("running")], NODES, TaskHistory())
    assert (seen.name, seen.project, seen.service, seen.revision) == (
        "p-web-1", "p", "web", "rev1",
    )  # fmt: skip
    assert (seen.state, seen.managed, seen.node) == (STATES.RUNNING, True, "m1")
    assert (seen.host, seen.port) == ("10.77.0.1", 32768)
    assert seen.addresses == ("10.0.1.2",)
    assert seen.labels == MARKS
    assert seen.created_at < seen.started_at
    assert (seen.exit_code, seen.finished_at, seen.error) == (None, 0.0, "")


def test_a_plain_replica_has_the_address_of_its_task() -> None:
    plain = service()
    del plain["Spec"]["EndpointSpec"]["Ports"]
    seen = observe(plain, [task("running", PortStatus={})], NODES, TaskHistory())
    assert (seen.host, seen.port) == ("10.0.1.2", 8080)
    assert not lacks_kept_port(seen)


@pytest.mark.parametrize(
    ("marks", "status", "address", "lacks"),
    [
        ({}, {}, ("10.77.0.1", 32768), True),
        ({labels.NODE_PORT: "32768"}, {}, ("10.77.0.1", 32768), False),
        # Its node has reported to another leading manager.
        ({labels.NODE_PORT: "32768"}, {"PortStatus": {}}, ("10.77.0.1", 32768), False),
        # Nothing knows the port: a host has no route to the overlay.
        ({}, {"PortStatus": {}}, (None, 0), False),
        # The Swarm knows better.
        ({labels.NODE_PORT: "1"}, {}, ("10.77.0.1", 32768), True),
    ],
)
def test_the_port_of_a_replica_outlives_the_leading_manager(
    marks: dict[str, str],
    status: dict[str, object],
    address: tuple[str | None, int],
    lacks: bool,
) -> None:
    seen = observe(service(**marks), [task("running", **status)], NODES, TaskHistory())
    assert (seen.host, seen.port) == address
    assert lacks_kept_port(seen) is lacks


def test_a_port_is_kept_in_the_service_without_another_task() -> None:
    spec = service()["Spec"]
    kept = kept_port_spec(32768, spec)
    assert kept == {**spec, "Labels": {**spec["Labels"], labels.NODE_PORT: "32768"}}
    assert kept_port_spec(32768, kept) is None


def test_a_task_that_is_to_end_is_stopping_at_once() -> None:
    ending = {**task("running"), "DesiredState": "shutdown"}
    seen = observe(service(), [ending, task("never starts")], NODES, TaskHistory())
    assert (seen.state, seen.host) == (STATES.STOPPING, "10.77.0.1")
    marked = service(**{STOPPED: "1"})
    assert observe(marked, [task("running")], NODES, TaskHistory()).state is STATES.STOPPING


def test_a_stopped_replica_keeps_its_exit_code() -> None:
    tasks = [task("never starts"), task("stopped")]
    assert task_of(tasks) == task("stopped")
    history = TaskHistory(started={tasks[1]["ID"]: 5.0})
    seen = observe(service(**{STOPPED: "1"}), tasks, NODES, history)
    assert (seen.state, seen.exit_code, seen.host) == (STATES.EXITED, 7, None)
    assert (seen.started_at, seen.addresses) == (5.0, ())
    assert seen.finished_at == pytest.approx(1795964277.388, abs=0.001)
    # Another process, which did not see it run, takes the time at which the task was created.
    later = observe(service(**{STOPPED: "1"}), tasks, NODES, TaskHistory())
    assert 0 < later.started_at < later.finished_at


@pytest.mark.parametrize(
    ("name", "state", "code", "error"),
    [
        ("done", STATES.EXITED, 0, ""),
        ("failed", STATES.EXITED, 3, ""),
        ("out of memory", STATES.EXITED, 137, ""),
        ("no program", STATES.EXITED, 127, ""),
        ("no image", STATES.EXITED, None, "did not start: node m1: No such image: sha256:abab"),
        ("no room", STATES.CREATED, None, ""),
        ("preparing", STATES.CREATED, None, ""),
    ],
)
def test_states_of_a_task(name: str, state: ReplicaState, code: int | None, error: str) -> None:
    seen = observe(service(), [task(name)], NODES, TaskHistory())
    assert (seen.state, seen.exit_code) == (state, code)
    assert seen.error.startswith(error)
    assert bool(seen.error) is bool(error)


def test_out_of_memory_is_known_from_the_container() -> None:
    ended = task("out of memory")
    history = TaskHistory(out_of_memory={ended["ID"]})
    assert observe(service(), [ended], NODES, history).oom_killed
    assert not observe(service(), [ended], NODES, TaskHistory()).oom_killed


def test_a_task_whose_health_check_has_not_passed_runs_but_is_not_healthy() -> None:
    checked = observe(service(), [task("checked")], NODES, TaskHistory())
    assert (checked.state, checked.health) == (STATES.RUNNING, ContainerHealth.HEALTHY)
    waits = observe(service(), [task("checked", State="starting")], NODES, TaskHistory())
    assert (waits.state, waits.health) == (STATES.RUNNING, ContainerHealth.STARTING)
    assert waits.host is None
    unchecked = observe(service(), [task("running", State="starting")], NODES, TaskHistory())
    assert (unchecked.state, unchecked.health) == (STATES.CREATED, ContainerHealth.NONE)


def test_a_task_of_a_node_that_is_down_is_lost_once_the_swarm_gives_it_up() -> None:
    down = {MANAGER.id: replace(MANAGER, ready=False)}
    given_up = {**task("running"), "DesiredState": "shutdown"}
    seen = observe(service(), [given_up], down, TaskHistory())
    assert (seen.state, seen.exit_code) == (STATES.EXITED, None)
    assert seen.error == "is lost: node m1 is down"
    assert observe(service(), [task("running")], down, TaskHistory()).state is STATES.RUNNING
    gone = observe(service(), [given_up], {}, TaskHistory())
    assert gone.error == "is lost: node zhmq347m6ochgl430j7qupkzg is down"


def test_a_service_without_a_task() -> None:
    assert observe(service(), [], NODES, TaskHistory()).state is STATES.CREATED
    stopped = service(**{STOPPED: "1"})
    assert observe(stopped, [], NODES, TaskHistory()).state is STATES.EXITED


def test_errors_name_the_node() -> None:
    assert describe_error(task("no room"), NODES) == (
        "no suitable node (insufficient resources on 1 node)"
    )
    assert describe_error(task("no image"), NODES).startswith("node m1: No such image")
    assert describe_error(task("running"), NODES) == ""
    assert describe_error(None, NODES) == ""
    assert is_missing_image(task("no image"))
    assert not is_missing_image(task("no program"))


def test_only_services_of_meshd_are_replicas() -> None:
    assert is_replica(service())
    assert not is_replica(RECORDED["service"])
