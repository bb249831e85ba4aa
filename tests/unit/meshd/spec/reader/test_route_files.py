"""Pages of routes are read together with the settings."""

from pathlib import Path

import pytest

from meshd.publish.filters import compile_filters
from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from meshd.spec.model import RouteSpec
from meshd.standalone.settings import read_settings

PAGE = "<h1>Back soon</h1>"


def compose(directory: Path, route: str) -> RouteSpec:
    file = directory / "compose.yml"
    file.write_text(
        f"services:\n  web:\n    image: web\n    x-mesh:\n      routes:\n        - {route}\n"
    )
    (service,) = load([file], environment={}).project.services
    return service.mesh.routes[0]


def test_a_specification_holds_the_pages_themselves(tmp_path: Path) -> None:
    (tmp_path / "down.html").write_text("\ufeff\n" + PAGE, encoding="utf-8")
    route = compose(
        tmp_path,
        "{maintenance: down.html, waiting_page: {page: down.html}, error_pages: {5xx: down.html, "
        "404: '{}'}}",
    )
    assert route.maintenance is not None
    assert route.waiting_page is not None
    assert route.maintenance.page == route.waiting_page.page == PAGE
    assert route.error_pages == {"5xx": PAGE, "404": "{}"}
    assert compile_filters(RouteSpec.model_validate(route.model_dump())) == compile_filters(route)


def test_the_file_of_the_proxy_has_pages_too(tmp_path: Path) -> None:
    (tmp_path / "down.html").write_text(PAGE)
    file = tmp_path / "front.yml"
    file.write_text("to: 127.0.0.1:9\nroutes: [{maintenance: down.html}]\n")
    (route,) = read_settings(str(file), {}).mesh.routes
    assert route.maintenance is not None
    assert route.maintenance.page == PAGE
    file.write_text("to: 127.0.0.1:9\nroutes: [{maintenance: gone.html}]\n")
    with pytest.raises(SpecError, match=r"front.yml:2.*gone.html cannot be read"):
        read_settings(str(file), {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "page.html cannot be read: No such file"),
        (b"just text", "page.html is not a page"),
        (b"<h1>\xff", "page.html is not valid UTF-8"),
        (b"<" * 65537, "page.html is larger than 64 KiB"),
    ],
)
def test_a_file_that_is_no_page(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "page.html").write_bytes(content)
    with pytest.raises(SpecError, match=rf"compose.yml:6: .*{problem}"):
        compose(tmp_path, "{error_pages: {503: page.html}}")


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("{error_pages: {200: '<p>'}}", "'200' is not a status of an error"),
        ("{error_pages: {5x: '<p>'}}", "'5x' is not a status of an error"),
        ("{cors: app.example.com}", "'app.example.com' is not a valid origin"),
        ("{cors: 'https://a.example/'}", "is not a valid origin"),
        ("{cors: {origins: '*', credentials: true}}", "would give every page the user's data"),
        ("{cors: {origins: '*', headers: 'a b'}}", "'a b' is not a valid name"),
        ("{cors: {}}", "origins is missing"),
        ("{maintenance: {allow: office}}", "'office' is not a valid network"),
        ("{waiting_page: {refresh: 10ms}}", "at least 1"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, route: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        compose(tmp_path, route)


HASH = "$2y$05$" + "a" * 53


def test_users_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"# staff\nann:{HASH}\n\nbob:{HASH}\n")
    route = compose(tmp_path, "{basic_auth: users}")
    assert route.basic_auth is not None
    assert route.basic_auth.users == (f"ann:{HASH}", f"bob:{HASH}")
    assert HASH not in repr(route)
    filters = compile_filters(route)
    assert filters is not None
    assert filters.basic_auth is not None
    assert filters.basic_auth.users == (("ann", HASH), ("bob", HASH))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("ann:{SHA}abc", "users: user ann has no bcrypt hash; expected the output of"),
        (f"ann:{HASH}\nann:{HASH}", "user ann is listed twice"),
        (f":{HASH}", "a user has no valid name"),
        ("# none", "users has no user"),
    ],
)
def test_files_of_users_that_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "users").write_text(content)
    with pytest.raises(SpecError, match=problem) as caught:
        compose(tmp_path, "{basic_auth: users}")
    assert HASH not in str(caught.value)


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("{basic_auth: {}}", "users and file are both missing"),
        ("{basic_auth: ['ann:secret']}", "user ann has no bcrypt hash"),
        ("{forward_auth: login}", "the forward_auth service 'login' does not exist"),
        ("{forward_auth: {service: web, headers: X-Forwarded-User}}", "is written by the proxy"),
        ("{forward_auth: {service: web, path: verify}}", "'verify' is not a valid path"),
        ("{forward_auth: {service: web, timeout: 0s}}", "greater than 0"),
    ],
)
def test_access_settings_that_are_refused(tmp_path: Path, route: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem) as caught:
        compose(tmp_path, route)
    assert "ann:secret" not in str(caught.value)


def test_a_service_of_the_project_decides(tmp_path: Path) -> None:
    route = compose(tmp_path, "{forward_auth: web/verify}")
    filters = compile_filters(route, "shop")
    assert filters is not None
    assert filters.forward_auth is not None
    assert (filters.forward_auth.service, filters.forward_auth.path) == ("shop/web", "/verify")


def test_a_standalone_proxy_has_no_service_that_decides(tmp_path: Path) -> None:
    file = tmp_path / "front.yml"
    file.write_text("to: 127.0.0.1:9\nroutes: [{forward_auth: login}]\n")
    with pytest.raises(SpecError, match="a standalone proxy has no other service"):
        read_settings(str(file), {})


def test_short_forms(tmp_path: Path) -> None:
    route = compose(
        tmp_path, "{cors: ['https://a.example'], maintenance: true, waiting_page: false}"
    )
    assert route.cors is not None
    assert route.cors.origins == ("https://a.example",)
    assert route.maintenance is not None
    assert route.waiting_page is None
    assert compile_filters(RouteSpec()) is None
