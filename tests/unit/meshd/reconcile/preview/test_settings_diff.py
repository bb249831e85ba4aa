"""Changes that replace no replica are listed field by field."""

import pytest

from meshd.reconcile.preview.settings_diff import diff_settings
from meshd.spec.model import (
    BackupHooks,
    Mesh,
    Mount,
    Project,
    Quota,
    RouteSpec,
    Scale,
    Service,
    TcpPortSpec,
    UpdateConfig,
)


def project(*services: Service) -> Project:
    return Project(name="shop", services=services)


WEB = Service(name="web", image="web:1", mesh=Mesh(scale=Scale(min=1, max=3)))


@pytest.mark.parametrize(
    ("after", "lines"),
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
def test_a_changed_setting_is_listed(after: Service, lines: list[str]) -> None:
    assert diff_settings(project(WEB), project(after), frozenset()) == lines


def test_changed_backup_hooks_are_listed() -> None:
    hooks = {"db": BackupHooks(quiesce=("save",)), "web": BackupHooks(quiesce=("save",))}
    before = project(WEB).model_copy(update={"backups": hooks})
    changed = {"web": BackupHooks(quiesce=("other",))}
    after = project(WEB).model_copy(update={"backups": changed})
    line = "update shop: backup hooks of db, web changed; no replica is replaced"
    assert diff_settings(before, after, frozenset()) == [line]
    assert diff_settings(before, before, frozenset()) == []


def test_new_and_revised_services_are_left_out() -> None:
    new = Service(name="api", image="api:1")
    revised = WEB.model_copy(update={"image": "web:2"})
    assert diff_settings(project(WEB), project(revised, new), frozenset({"web"})) == []


DATABASE = Service(
    name="db", image="db:1", volumes=(Mount(type="volume", source="d", target="/d"),)
)
START_FIRST, SOCKET = UpdateConfig(order="start-first"), {"is_file": True}


@pytest.mark.parametrize("revised", [frozenset[str](), frozenset({"db"})])
def test_another_default_order_is_named(revised: frozenset[str]) -> None:
    """Earlier versions stored `start-first` where the file set no order."""
    stored = DATABASE.model_copy(update={"update": START_FIRST})
    assert diff_settings(project(stored), project(DATABASE), revised) == [
        "update shop/db: update.order becomes stop-first (it was start-first), as /d holds data "
        "and the file sets no order"
    ]
    assert diff_settings(project(DATABASE), project(DATABASE), revised) == []


def test_the_default_order_of_a_service_without_data_is_not_a_change() -> None:
    stored = WEB.model_copy(update={"update": START_FIRST})
    assert diff_settings(project(stored), project(WEB), frozenset()) == []
    (mount,) = DATABASE.volumes
    socket = DATABASE.model_copy(update={"volumes": (mount.model_copy(update=SOCKET),)})
    stored = DATABASE.model_copy(update={"update": START_FIRST})
    assert diff_settings(project(stored), project(socket), frozenset()) == []


def test_a_changed_address_of_traces_is_listed() -> None:
    after = project(WEB).model_copy(update={"trace_url": "http://viewer/{trace_id}"})
    lines = diff_settings(project(WEB), after, frozenset())
    assert lines == ["update shop: its trace links become http://viewer/{trace_id}"]
    lines = diff_settings(after, project(WEB), frozenset())
    assert lines == ["update shop: its trace links become none"]


def test_a_changed_quota_is_listed() -> None:
    after = project(WEB).model_copy(update={"quota": Quota(replicas=3)})
    lines = diff_settings(project(WEB), after, frozenset())
    assert lines == ["update shop: its quota becomes 3 replicas"]
    assert diff_settings(after, project(WEB), frozenset()) == [
        "update shop: its quota becomes none"
    ]


def test_a_change_of_kind_says_how_the_service_is_reached() -> None:
    plain = Service(name="web", image="i", plain=True, expose=(3000,))
    mesh = plain.model_copy(update={"plain": False})
    tcp = Service(name="web", image="i", expose=(3000,), mesh=Mesh(tcp=(TcpPortSpec(port=3000),)))

    lines = diff_settings(project(plain), project(mesh), frozenset({"web"}))
    assert lines[0].endswith("; it is HTTP, reached at web, web:3000")
    back = diff_settings(project(mesh), project(plain), frozenset({"web"}))
    assert back[0].endswith("; it is plain, reached at web:3000")
    assert back[1].endswith("(it was start-first), as it is plain and the file sets no order")
    (line, *_) = diff_settings(project(mesh), project(tcp), frozenset())
    assert line == "update shop/web: becomes TCP (it was HTTP); it is TCP, reached at web:3000"
