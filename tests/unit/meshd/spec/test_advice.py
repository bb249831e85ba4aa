"""What services of a Compose file are, and which would gain from `x-mesh`: tables."""

import textwrap
from pathlib import Path

import pytest

from meshd.spec.advice import describe_kinds, list_differences, suggest_mesh
from meshd.spec.compose import load
from meshd.spec.model import Project


def project(directory: Path, body: str, *, image: str = "app") -> Project:
    path = directory / "compose.yml"
    text = textwrap.indent(textwrap.dedent(body), "    ")
    path.write_text(f"services:\n  web:\n    image: {image}\n{text}\nvolumes: {{data: {{}}}}\n")
    return load([path], environment={}).project


@pytest.mark.parametrize(
    ("body", "kind", "reached"),
    [
        ("", "plain", ("web",)),
        ("expose: [5432]", "plain", ("web:5432",)),
        ("ports: ['81:80', '53:53/udp']", "plain", ("web:80", "host 81:80/tcp", "host 53:53/udp")),
        ("network_mode: host\nexpose: [80]", "plain", ("on the host's addresses",)),
        ("network_mode: none", "plain", ("not at all",)),
        ("network_mode: container:vpn", "plain", ("on the addresses of container vpn",)),
        ("x-mesh: {}", "HTTP", ("web", "web:8080")),
        ("expose: [80]\nx-mesh: {routes: [/]}", "HTTP", ("web", "route /")),
        ("expose: [5432]\nx-mesh: {tcp: 5432}", "TCP", ("web:5432",)),
        ("expose: [5432]\nx-mesh: {}", "TCP", ("web:5432",)),
        ("expose: [80, 25]\nx-mesh: {}", "HTTP+TCP", ("web", "web:25")),
        ("expose: [5432]\nx-mesh: {tcp: []}", "HTTP", ("web", "web:5432")),
        ("x-mesh: {port: 3000, tcp: [9, 80]}", "HTTP+TCP", ("web", "web:3000", "web:9", "web:80")),
    ],
)  # fmt: skip
def test_kinds(tmp_path: Path, body: str, kind: str, reached: tuple[str, ...]) -> None:
    (found,) = describe_kinds(project(tmp_path, body))
    assert (found.service, found.kind, found.reached) == ("web", kind, reached)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "no x-mesh"),
        ("x-mesh: {port: 3}", "x-mesh; main port 3, from x-mesh.port"),
        (
            "expose: [6379]\nx-mesh: {}",
            "x-mesh; main port 6379, from expose; 6379 is the port of Redis",
        ),
        ("expose: [4]\nx-mesh: {}", "x-mesh; main port 4, from expose"),
        ("ports: ['5']\nx-mesh: {}", "x-mesh; main port 5, from ports"),
        ("environment: {PORT: 6}\nx-mesh: {}", "x-mesh; main port 6, from PORT in environment"),
        ("x-mesh: {}", "x-mesh; main port 8080, unless the image declares another (EXPOSE)"),
    ],
)
def test_reasons(tmp_path: Path, body: str, why: str) -> None:
    assert describe_kinds(project(tmp_path, body))[0].why == why


@pytest.mark.parametrize(
    ("image", "body", "line"),
    [
        (
            "app",
            "healthcheck: {test: curl -f http://localhost:8000/healthz || exit 1}",
            "x-mesh: {port: 8000, health: /healthz}",
        ),
        ("app", "healthcheck: {test: 'wget http://[::1]'}", "x-mesh: {port: 80, health: /}"),
        (
            "app",
            "expose: [3000]\nhealthcheck: {test: 'wget -q \"http://localhost:3000/up?a=1\"'}",
            "x-mesh: {health: /up?a=1}",
        ),
        ("app", "command: gunicorn --bind 0.0.0.0:5001 app", "x-mesh: {port: 5001, health: tcp}"),
        ("app", "command: python -m http.server\nexpose: [9001]", "x-mesh: {health: tcp}"),
        ("registry.example/team/nginx:1.27", "", "x-mesh: {port: 80, health: tcp}"),
        ("app", "ports: ['3000:3000']", "x-mesh: {health: tcp}"),
    ],
)  # fmt: skip
def test_suggestions(tmp_path: Path, image: str, body: str, line: str) -> None:
    (found,) = suggest_mesh(project(tmp_path, body, image=image))
    assert found.line == line
    assert found.why


@pytest.mark.parametrize(
    ("image", "body"),
    [
        ("app", ""),
        ("app", "expose: [5432]"),
        ("app", "command: gunicorn app"),
        ("postgres:16", "ports: ['8080:8080']"),
        ("app", "ports: ['8080:8080']\nvolumes: ['data:/data']"),
        ("app", "ports: ['8080:8080', '8080:8080/udp']"),
        ("app", "ports: ['8080:8080']\nx-mesh: {}"),
        ("app", "ports: ['8080:8080']\nprivileged: true"),
        ("app", "ports: ['8080:8080']\nnetwork_mode: host"),
        ("app", "ports: ['8080:8080']\nnetworks: {default: {ipv4_address: 10.0.0.2}}"),
        ("app", "healthcheck: {test: curl https://localhost:8443/}"),
        ("app", "healthcheck: {test: curl http://db:8000/}"),
        ("app", "healthcheck: {test: curl http://localhost:8000/, disable: true}"),
    ],
)
def test_no_suggestion(tmp_path: Path, image: str, body: str) -> None:
    assert suggest_mesh(project(tmp_path, body, image=image)) == ()


def test_a_suggested_line_is_valid_and_makes_the_service_http(tmp_path: Path) -> None:
    body = "healthcheck: {test: curl http://localhost:8000/healthz}"
    (found,) = suggest_mesh(project(tmp_path, body))
    assert describe_kinds(project(tmp_path, f"{body}\n{found.line}"))[0].kind == "HTTP"


def test_differences(tmp_path: Path) -> None:
    plain = project(tmp_path, "healthcheck: {test: 'true'}").services
    managed = project(tmp_path, "x-mesh: {}").services
    assert [line.partition(":")[0] for line in list_differences(plain)[1:]] == ["web"]
    assert [line.partition(":")[0] for line in list_differences(managed)[1:]] == ["web", "web"]
    assert "json-file" in list_differences(())[0]


def test_what_passes_by_the_mesh(tmp_path: Path) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(
        "services:\n"
        "  dns: {image: i, ports: ['53:53/udp', '80:80'], x-mesh: {}, networks: [old, new]}\n"
        "  db: {image: i, ports: ['54:54/udp'], networks: [old]}\n"
        "networks: {old: {external: true}, new: {}}\n"
    )
    found = load([path], environment={}).project
    lines = list_differences(found.services, found.networks)
    assert [line for line in lines if line.startswith("dns: plain services on the network old")]
    (udp,) = [line for line in lines if "53:53/udp" in line]
    assert udp.startswith("dns: 53:53/udp is reached only through the port of the host")
    assert not [line for line in lines if "db" in line or "new" in line.split()]
