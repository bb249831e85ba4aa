"""`meshd config`: the canonical form of a Compose file, and lists of its parts."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from meshd.cli.commands.config import to_yaml
from meshd.cli.main import main


def run(directory: Path, text: str, *arguments: str) -> Result:
    file = directory / "compose.yml"
    file.write_text(textwrap.dedent(text))
    return CliRunner().invoke(main, ["config", "-f", str(file), *arguments])


def service(directory: Path, body: str) -> dict[str, Any]:
    """Return the canonical form of a service with an image and `body`, without what every service
    has."""
    text = f"services: {{web: {{image: i, {body}}}, db: {{image: d}}}}\nvolumes: {{data: }}\n"
    result = run(directory, text, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["services"]["web"]
    assert found.pop("image") == "i"
    plain = {"command": None, "entrypoint": None, "networks": {"default": None}}
    return {key: value for key, value in found.items() if plain.get(key, ...) != value}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("command: serve 'a b'", {"command": ["serve", "a b"]}),
        ("entrypoint: [a, 1]", {"entrypoint": ["a", "1"]}),
        ("environment: [A=1, B=x=y, NOT_SET], env_file: a.env",
         {"environment": {"A": "1", "B": "x=y", "F": "file"}}),
        ("environment: {A: 1.10, B: true}", {"environment": {"A": "1.10", "B": "true"}}),
        ("labels: [a=b, c], annotations: {d: 1}",
         {"labels": {"a": "b", "c": ""}, "annotations": {"d": "1"}}),
        ("depends_on: [db]",
         {"depends_on": {"db": {"condition": "service_started", "required": True}}}),
        ("depends_on: {db: {condition: service_healthy, restart: 'true'}}",
         {"depends_on": {"db": {"condition": "service_healthy", "required": True,
                                "restart": True}}}),
        ("ports: [80, '127.0.0.1:8080-8081:80-81']",
         {"ports": [
             {"mode": "ingress", "target": 80, "protocol": "tcp"},
             {"mode": "ingress", "host_ip": "127.0.0.1", "target": 80, "published": "8080",
              "protocol": "tcp"},
             {"mode": "ingress", "host_ip": "127.0.0.1", "target": 81, "published": "8081",
              "protocol": "tcp"}]}),
        ("ports: [{target: '80', published: 8080}]",
         {"ports": [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}]}),
        ("volumes: ['data:/d/:ro', './x:/x', /anon]",
         {"volumes": [
             {"type": "volume", "source": "data", "target": "/d", "read_only": True, "volume": {}},
             {"type": "bind", "source": "DIR/x", "target": "/x",
              "bind": {"create_host_path": True}},
             {"type": "volume", "target": "/anon", "volume": {}}]}),
        ("volumes: [{type: bind, source: ./x, target: /x/, read_only: 'true'}]",
         {"volumes": [{"type": "bind", "source": "DIR/x", "target": "/x", "read_only": True}]}),
        ("networks: [default]", {}),
        ("networks: {default: {aliases: [a]}}", {"networks": {"default": {"aliases": ["a"]}}}),
        ("build: .", {"build": {"context": "DIR", "dockerfile": "Dockerfile"}}),
        ("build: {args: [A=1, B]}",
         {"build": {"context": "DIR", "dockerfile": "Dockerfile", "args": {"A": "1", "B": None}}}),
        ("healthcheck: {test: curl x, interval: 90s, timeout: 200ms, retries: '3'}",
         {"healthcheck": {"test": ["CMD-SHELL", "curl x"], "interval": "1m30s",
                          "timeout": "200ms", "retries": 3}}),
        ("stop_grace_period: 1h", {"stop_grace_period": "1h0m0s"}),
        ("deploy: {replicas: '2', resources: {limits: {cpus: '0.50', memory: 1g}}}",
         {"deploy": {"replicas": 2, "resources": {"limits": {"cpus": 0.5,
                                                             "memory": "1073741824"}}}}),
        ("mem_limit: 512m, user: 1000, restart: 'no', init: 'true'",
         {"mem_limit": "536870912", "user": "1000", "restart": "no", "init": True}),
        ("extra_hosts: ['h:10.0.0.1', 'h:10.0.0.2']",
         {"extra_hosts": ["h=10.0.0.1", "h=10.0.0.2"]}),
        ("dns: 9.9.9.9, tmpfs: /run", {"dns": ["9.9.9.9"], "tmpfs": ["/run"]}),
        ("ulimits: {nofile: 5, core: {soft: '1', hard: 2}}",
         {"ulimits": {"nofile": 5, "core": {"soft": 1, "hard": 2}}}),
        ("devices: ['/dev/a:/dev/b:r', /dev/c]",
         {"devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"},
                      {"source": "/dev/c", "target": "/dev/c", "permissions": "rwm"}]}),
        ("gpus: all", {"gpus": [{"count": -1}]}),
        ("gpus: [{count: all, driver: nvidia}]", {"gpus": [{"count": -1, "driver": "nvidia"}]}),
        ("x-mesh: {routes: [/a]}, x-own: {A: 1}",
         {"x-mesh": {"routes": ["/a"]}, "x-own": {"A": 1}}),
    ],
)  # fmt: skip
def test_the_canonical_form_of_a_service(
    tmp_path: Path, body: str, expected: dict[str, Any]
) -> None:
    (tmp_path / "a.env").write_text("F=file\nA=0\nNOT_SET=file\n")
    found = json.dumps(service(tmp_path, body)).replace(str(tmp_path), "DIR")
    assert json.loads(found) == expected


FILE = """
name: My-Shop
services:
  web:
    image: web:${TAG:-1}
    secrets: [key]
    configs: [{source: menu, target: /etc/menu}]
    networks: [front]
    volumes: ["data:/d"]
  api: {build: .}
  extra: {image: e, profiles: [debug, more]}
networks: {front: {internal: 'true'}}
volumes: {data: }
secrets: {key: {file: ./key}}
configs: {menu: {file: ./key}}
x-mesh: {access_log: "on"}
"""


def test_the_top_level(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    result = run(tmp_path, FILE, "--format", "json")
    found = json.loads(result.stdout)
    assert list(found) == [
        "name", "services", "networks", "volumes", "secrets", "configs", "x-mesh"
    ]  # fmt: skip
    assert list(found["services"]) == ["api", "web"]
    assert found["services"]["web"]["image"] == "web:1"
    assert found["services"]["web"]["secrets"] == [{"source": "key", "target": "/run/secrets/key"}]
    assert found["services"]["web"]["configs"] == [{"source": "menu", "target": "/etc/menu"}]
    assert found["networks"] == {
        "default": {"name": "my-shop_default"},
        "front": {"internal": True, "name": "my-shop_front"},
    }
    assert found["volumes"] == {"data": {"name": "my-shop_data"}}
    assert found["secrets"] == {"key": {"file": str(tmp_path / "key"), "name": "my-shop_key"}}
    assert found["x-mesh"] == {"access_log": "on"}


def test_yaml_has_the_same_values(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    first = run(tmp_path, FILE.replace("networks: [front]", "expose: [80]"))
    assert first.exit_code == 0
    values = YAML(typ="safe").load(first.stdout)
    assert values["services"]["web"]["expose"] == ["80"]
    assert values["x-mesh"] == {"access_log": "on"}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--services", ["api", "web"]),
        ("--images", ["web:1", "my-shop_api"]),
        ("--volumes", ["data"]),
        ("--profiles", ["debug", "more"]),
    ],
)
def test_lists(tmp_path: Path, option: str, expected: list[str]) -> None:
    (tmp_path / "key").touch()
    assert run(tmp_path, FILE, option).stdout.split() == expected


def test_warnings_and_errors_go_to_standard_error(tmp_path: Path) -> None:
    warned = run(tmp_path, "version: '3'\nservices: {web: {image: i}}\n")
    assert warned.exit_code == 0
    assert "warning: " in warned.stderr
    assert "warning:" not in warned.stdout
    refused = run(tmp_path, "services: {web: {imag: i}}\n")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "did you mean image?" in refused.stderr


@pytest.mark.parametrize(
    "text",
    ["yes", "Off", "1:30", "1_000", "0o17", "1.10", "", "~", "a: b", "- a", "a\nb", "é", "null"],
)
def test_text_is_quoted_where_a_reader_could_take_it_for_something_else(text: str) -> None:
    written = to_yaml({"a": text})
    assert written.startswith('a: "')
    assert YAML(typ="safe", pure=True).load(written) == {"a": text}
