"""`meshd check`: what each service of a Compose file is, as text and as JSON."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from meshd.cli.main import main

TEXT = """
services:
  db: {image: postgres, expose: [5432]}
  api: {image: api, expose: [3000], x-mesh: {}}
  web: {image: web, healthcheck: {test: curl http://localhost:8000/up}}
"""


def check(directory: Path, text: str, *arguments: str) -> Result:
    file = directory / "compose.yml"
    file.write_text(text)
    return CliRunner().invoke(main, ["check", "-f", str(file), *arguments])


def test_kinds_suggestions_and_differences(tmp_path: Path) -> None:
    result = check(tmp_path, TEXT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["db", "plain", "db:5432"],
        ["api", "HTTP", "api,"],
        ["web", "plain", "web"],
    ]
    assert "      x-mesh: {port: 8000, health: /up}" in lines
    assert "Differences from Docker Compose:" in lines


def test_json(tmp_path: Path) -> None:
    found = json.loads(check(tmp_path, TEXT, "-o", "json").stdout)
    assert [each["kind"] for each in found["services"]] == ["plain", "HTTP", "plain"]
    assert [each["service"] for each in found["suggestions"]] == ["web"]


def test_a_refused_file(tmp_path: Path) -> None:
    result = check(tmp_path, "services: {web: {}}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing to run" in result.stderr
