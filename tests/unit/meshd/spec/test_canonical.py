"""The canonical form of keys that are changed on the way to it."""

import json
from pathlib import Path
from typing import Any

from meshd.spec.canonical import build_canonical
from meshd.spec.compose import load


def canonical(folder: Path, text: str) -> dict[str, Any]:
    (folder / "compose.yml").write_text(text)
    return build_canonical(load([folder / "compose.yml"], environment={}))


def test_dependencies_that_other_keys_imply(tmp_path: Path) -> None:
    text = """
services:
  web: {image: i, links: ["db:data"], volumes_from: [box:ro], depends_on: [cache]}
  side: {image: i, network_mode: service:db, ipc: service:box}
  db: {image: i}
  box: {image: i}
  cache: {image: i}
"""
    services = canonical(tmp_path, text)["services"]
    started = {"condition": "service_started", "required": True}
    assert services["web"]["depends_on"] == {
        "box": started,
        "cache": started,
        "db": {**started, "restart": True},
    }
    assert services["side"]["depends_on"] == {
        "box": {**started, "restart": True},
        "db": {**started, "restart": True},
    }
    assert "networks" not in services["side"]
    assert "depends_on" not in services["db"]


def test_labels_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "l.env").write_text("a=1\nb=2\nmesh.route=/x\n")
    text = "services: {web: {image: i, label_file: l.env, labels: [b=3]}}\n"
    web = canonical(tmp_path, text)["services"]["web"]
    assert web["labels"] == {"a": "1", "b": "3", "mesh.route": "/x"}
    assert "label_file" not in web


def test_an_included_file_keeps_its_directories(tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    (sub / "data").mkdir(parents=True)
    (sub / "l.env").write_text("a=1\n")
    (sub / "compose.yml").write_text(
        """
services:
  db:
    image: i
    label_file: [./l.env]
    build: {context: ., additional_contexts: [x=./data, y=docker-image://z]}
    volumes: ["data:/v"]
volumes:
  data: {driver: local, driver_opts: {type: none, o: bind, device: ./data}}
"""
    )
    found = canonical(tmp_path, "include: [sub/compose.yml]\n")
    db = found["services"]["db"]
    assert db["labels"] == {"a": "1"}
    assert db["build"]["additional_contexts"] == {
        "x": str(sub / "data"),
        "y": "docker-image://z",
    }
    assert found["volumes"]["data"]["driver_opts"]["device"] == str(sub / "data")


def test_modes_are_octal_text(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("x")
    text = """
services:
  web:
    image: i
    secrets: [{source: s, mode: 0440}, {source: s, target: b, mode: "0400"}]
    configs: [{source: c, mode: 292}, {source: c, target: /d}]
secrets: {s: {file: ./s.txt}}
configs: {c: {content: x}}
"""
    service = canonical(tmp_path, text)["services"]["web"]
    assert [each.get("mode") for each in service["secrets"]] == ["0440", "0400"]
    assert [each.get("mode") for each in service["configs"]] == ["0444", None]


def test_paths_and_forms_of_builds(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("x")
    text = """
services:
  web:
    build:
      context: .
      additional_contexts: {lib: ./lib, base: docker-image://base}
      extra_hosts: ["h:1.1.1.1"]
      secrets: [s, {source: s, target: t}]
      ssh: [default, k=./key]
    develop: {watch: [{path: ./src, action: rebuild}]}
secrets: {s: {file: ./s.txt}}
"""
    service = canonical(tmp_path, text)["services"]["web"]
    assert service["build"] == {
        "additional_contexts": {"lib": str(tmp_path / "lib"), "base": "docker-image://base"},
        "context": str(tmp_path),
        "dockerfile": "Dockerfile",
        "extra_hosts": ["h=1.1.1.1"],
        "secrets": [{"source": "s"}, {"source": "s", "target": "t"}],
        "ssh": ["default", f"k={tmp_path}/key"],
    }
    assert service["develop"]["watch"] == [{"path": str(tmp_path / "src"), "action": "rebuild"}]


def test_the_form_can_be_read_again(tmp_path: Path) -> None:
    """Dollar signs are doubled, so that no variable is replaced a second time."""
    text = """
services:
  web:
    image: i
    command: sh -c 'echo $$PORT'
    environment: {PRICE: "5$$"}
"""
    found = canonical(tmp_path, text)
    web = found["services"]["web"]
    assert web["command"] == ["sh", "-c", "echo $$PORT"]
    assert web["environment"] == {"PRICE": "5$$"}
    assert canonical(tmp_path, json.dumps(found)) == found
