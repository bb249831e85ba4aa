"""Labels that meshd writes on replicas, and labels that it reads from adopted containers."""

import pytest

from meshd.spec import labels
from meshd.spec.errors import SpecError
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import DrainSettings, HealthCheck, Objective, RouteSpec, Scale

COMPOSE = {labels.COMPOSE_PROJECT: "shop", labels.COMPOSE_SERVICE: "web"}


def test_labels_of_a_replica() -> None:
    assert labels.make_labels("shop", "web", "abc", "shop-web-1", 9000) == {
        "mesh.managed": "1",
        "mesh.project": "shop",
        "mesh.service": "web",
        "mesh.revision": "abc",
        "mesh.replica": "shop-web-1",
        "mesh.port": "9000",
    }


@pytest.mark.parametrize(
    ("marks", "project", "service", "meshed", "managed"),
    [
        ({}, "default", "", False, False),
        (COMPOSE, "shop", "web", False, False),
        ({**COMPOSE, "mesh.port": "1"}, "shop", "web", True, False),
        ({**COMPOSE, "mesh.project": "p", "mesh.service": "s"}, "p", "s", True, False),
        (labels.make_labels("p", "s", "r", "n", 1), "p", "s", True, True),
    ],
)
def test_project_and_service_of_a_container(
    marks: dict[str, str], project: str, service: str, meshed: bool, managed: bool
) -> None:
    assert labels.project_of(marks) == project
    assert labels.service_of(marks) == service
    assert labels.is_meshed(marks) is meshed
    assert labels.is_managed(marks) is managed


def test_an_adopted_container_with_many_labels() -> None:
    project, service = labels.adopt(
        "shop_web_1",
        {
            **COMPOSE,
            "mesh.port": "9000",
            "mesh.route": "/a, api.example.com/b",
            "mesh.scale.min": "2",
            "mesh.scale.max": "6",
            "mesh.scale.p99.9": "200ms",
            "mesh.scale.concurrency": "8",
            "mesh.health": "/ready",
            "mesh.health.interval": "500ms",
            "mesh.balance": "ring-hash",
            "mesh.balance.hash_by": "header:X-User",
            "mesh.allow": "orders,auth",
            "mesh.drain": "1m",
            "mesh.drain.tunnels": "2h",
            "mesh.timeouts.request": "5s",
            "mesh.retries.attempts": "1",
            "unrelated": "x",
        },
        image="shop/web:1",
    )
    assert project == "shop"
    assert (service.name, service.image, service.port, service.replicas) == (
        "web", "shop/web:1", 9000, 2,
    )  # fmt: skip
    mesh = service.mesh
    assert mesh.routes == (RouteSpec(path="/a"), RouteSpec(host="api.example.com", path="/b"))
    objective = Objective(latency=0.2, share=99.9)
    assert mesh.scale == Scale(min=2, max=6, objective=objective, concurrency=8)
    assert mesh.health == HealthCheck(path="/ready", interval=0.5)
    assert (mesh.balance.algorithm, mesh.balance.hash_by) == ("ring-hash", "header:X-User")
    assert mesh.allow == ("orders", "auth")
    assert mesh.drain == DrainSettings(requests=60.0, tunnels=7200.0)
    assert (mesh.timeouts.request, mesh.retries.attempts) == (5.0, 1)


def test_an_adopted_container_with_only_a_service() -> None:
    project, service = labels.adopt("web-1", {"mesh.service": "web"}, exposed=(5000, 5001))
    assert (project, service.port, service.replicas) == ("default", 5000, 1)
    assert not service.mesh.routes


def test_the_revision_follows_image_and_compose_configuration() -> None:
    def of(image: str, config: str) -> str:
        marks = {**COMPOSE, "mesh.port": "1", labels.COMPOSE_CONFIG_HASH: config}
        return compute_revision(labels.adopt("c", marks, image)[1])

    assert of("i", "1") == of("i", "1")
    assert len({of("i", "1"), of("i", "2"), of("j", "1")}) == 3


@pytest.mark.parametrize(
    ("marks", "messages"),
    [
        ({"mesh.port": "80"}, ["mesh.service: '' is not a valid name; expected letters"]),
        ({"mesh.service": "We b"}, ["mesh.service: 'We b' is not a valid name; expected letters"]),
        ({**COMPOSE, "mesh.project": "a b"}, ["mesh.project: 'a b' is not a valid name; expected"]),
        (
            {**COMPOSE, "mesh.port": "http"},
            ["mesh.port: 'http' is not valid; expected a whole number"],
        ),
        ({**COMPOSE, "mesh.rout": "/"}, ["mesh.rout: unknown key; did you mean routes?"]),
        (
            {**COMPOSE, "mesh.scale.min": "3", "mesh.scale.max": "2"},
            ["mesh.scale: min 3 is above max 2; expected min <= max"],
        ),
        (
            {**COMPOSE, "mesh.scale.p95": "1s"},
            ["mesh.scale: an objective requires an upper bound; expected max"],
        ),
        (
            {**COMPOSE, "mesh.route": "/a,b c", "mesh.health": "up", "mesh.drain": "soon"},
            [
                "mesh.routes[1]: 'b c' is not a valid host",
                "mesh.health: 'up' is not a valid health check",
                "mesh.drain: 'soon' is not a valid duration",
            ],
        ),
    ],
)
def test_errors_name_the_container_and_the_label(
    marks: dict[str, str], messages: list[str]
) -> None:
    with pytest.raises(SpecError) as raised:
        labels.adopt("shop_web_1", marks)
    found = [str(problem) for problem in raised.value.problems]
    assert len(found) == len(messages)
    for text, start in zip(found, messages, strict=True):
        assert text.startswith(f"container shop_web_1: label {start}")


def test_every_objective_has_a_label() -> None:
    marks = {
        "mesh.service": "web",
        "mesh.scale.min": "0",
        "mesh.scale.max": "9",
        "mesh.scale.p99.9": "200ms",
        "mesh.scale.cpu": "70",
        "mesh.scale.queue": "50ms",
        "mesh.scale.schedule.cron": "0 11 * * mon-fri",
        "mesh.scale.schedule.duration": "3h",
        "mesh.scale.schedule.min": "5",
        "mesh.scale.prometheus.url": "http://prometheus:9090/",
        "mesh.scale.prometheus.query": "sum(jobs)",
        "mesh.scale.prometheus.per_replica": "10",
        "mesh.scale.priority": "-1",
        "mesh.scale.idle": "2m",
    }
    adopted = labels.adopt("web-1", marks, "shop", (80,))
    assert adopted is not None
    scale = adopted[1].mesh.scale
    assert scale is not None
    assert scale.objective is not None
    assert (scale.objective.share, scale.cpu, scale.queue, scale.idle) == (99.9, 70, 0.05, 120)
    assert (scale.schedule[0].min, scale.schedule[0].duration) == (5, 10800)
    assert scale.prometheus is not None
    assert (scale.prometheus.url, scale.priority) == ("http://prometheus:9090", -1)
