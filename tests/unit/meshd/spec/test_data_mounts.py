"""Mounts that hold data, and the order of replacement that follows from them."""

import socket
import textwrap
from pathlib import Path

import pytest

from meshd.spec.compose import LoadedProject, load


def load_service(directory: Path, body: str) -> LoadedProject:
    path = directory / "compose.yml"
    path.write_text(
        f"services:\n  db:\n    image: db\n{body}"
        "volumes: {data: {}}\nsecrets: {key: {file: ./file}}\nconfigs: {conf: {file: ./file}}\n"
    )
    return load([path], environment={})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    return tmp_path


@pytest.mark.parametrize(
    ("volume", "order"),
    [
        ("data:/d", "stop-first"),
        ("/d", "stop-first"),
        ("./folder:/d", "stop-first"),
        ("./link:/d", "stop-first"),
        ("./absent:/d", "stop-first"),
        ("data:/d:ro", "start-first"),
        ("./folder:/d:ro", "start-first"),
        ("./file:/d", "start-first"),
        ("./socket:/d", "start-first"),
        ("/absent/docker.sock:/d", "start-first"),
        ("/dev/null:/d", "start-first"),
        ("{type: volume, source: data, target: /d}", "stop-first"),
        ("{type: bind, source: ./file, target: /d}", "start-first"),
        ("{type: tmpfs, target: /d}", "start-first"),
    ],
)
def test_the_default_order_follows_from_the_mounts(
    directory: Path, volume: str, order: str
) -> None:
    body = f"    x-mesh: {{}}\n    volumes: [{volume!r}]\n".replace("'{", "{").replace("}'", "}")
    project = load_service(directory, body).project
    service = project.service("db")
    assert service.update_order == order
    assert service.update.order is None


def test_secrets_configs_and_tmpfs_hold_no_data(directory: Path) -> None:
    body = "    x-mesh: {}\n    secrets: [key]\n    configs: [conf]\n    tmpfs: /run\n"
    assert load_service(directory, body).project.service("db").update_order == "start-first"


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("volumes", ["[]", "['data:/d']"])
def test_an_explicit_order_holds(directory: Path, order: str, volumes: str) -> None:
    body = f"    volumes: {volumes}\n    deploy: {{update_config: {{order: {order}}}}}\n"
    assert load_service(directory, body).project.service("db").update_order == order


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("{rollout: {strategy: blue-green}}", "rollout.strategy: blue-green"),
        ("{rollout: {max_surge: 1}}", "rollout.max_surge"),
        ("{scale: {min: 1, max: 2, rps: 5, warm: 1}}", "scale.warm"),
    ],
)
def test_settings_that_need_additional_replicas_are_warned_about(
    directory: Path, settings: str, name: str
) -> None:
    body = f"    volumes: ['data:/d']\n    x-mesh: {settings}\n"
    (warning,) = load_service(directory, body).warnings
    assert f"x-mesh.{name} starts no additional replica, because /d holds data" in str(warning)
    explicit = body + "    deploy: {update_config: {order: start-first}}\n"
    assert not load_service(directory, explicit).warnings


@pytest.mark.parametrize(
    ("body", "use"),
    [
        ("ports: ['80:80']", "port 80 of the host"),
        ("ports: ['53:53/udp']", "port 53 of the host"),
        ("networks: {default: {ipv4_address: 10.0.0.2}}", "its address in default"),
        ("ports: ['80']", None),
        ("ports: ['8000-8010:80']", None),
        ("ports: ['80:80']\nx-mesh: {}", None),
    ],
)
def test_a_plain_service_that_can_run_only_once_stops_first(
    directory: Path, body: str, use: str | None
) -> None:
    body += "\ndeploy: {update_config: {order: start-first}}"
    loaded = load_service(directory, textwrap.indent(body, "    ") + "\n")
    service = loaded.project.service("db")
    assert service.exclusive_use == use
    assert service.update_order == ("start-first" if use is None else "stop-first")
    assert any("order: start-first has no effect" in str(each) for each in loaded.warnings) == (
        use is not None
    )
