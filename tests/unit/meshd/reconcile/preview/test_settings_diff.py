"""Changes that replace no replica are told, field by field."""

import pytest

from meshd.reconcile.preview.settings_diff import settings_changed
from meshd.spec.model import Mesh, Project, Quota, RouteSpec, Scale, Service


def project(*services: Service) -> Project:
    return Project(name="shop", services=services)


WEB = Service(name="web", image="web:1", mesh=Mesh(scale=Scale(min=1, max=3)))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (WEB, []),
        (
            WEB.model_copy(update={"mesh": Mesh(scale=Scale(min=2, max=3))}),
            ["update shop/web: scale.min changed; no replica is replaced"],
        ),
        (
            WEB.model_copy(
                update={"replicas": 4, "mesh": Mesh(scale=None, routes=(RouteSpec(path="/a"),))}
            ),
            ["update shop/web: replicas, routes, scale changed; no replica is replaced"],
        ),
    ],
)
def test_a_changed_setting_is_named(after: Service, told: list[str]) -> None:
    assert settings_changed(project(WEB), project(after), frozenset()) == told


def test_new_and_revised_services_are_the_plans_to_tell() -> None:
    new = Service(name="api", image="api:1")
    revised = WEB.model_copy(update={"image": "web:2"})
    assert settings_changed(project(WEB), project(revised, new), frozenset({"web"})) == []


def test_another_quota_is_told() -> None:
    after = project(WEB).model_copy(update={"quota": Quota(replicas=3)})
    told = settings_changed(project(WEB), after, frozenset())
    assert told == ["update shop: its quota is 3 replicas from now on"]
    assert settings_changed(after, project(WEB), frozenset()) == [
        "update shop: its quota is none from now on"
    ]
