"""Two keys of Compose for one field, and names that the file gives twice."""

import textwrap
from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.model import Service


def read(directory: Path, body: str) -> tuple[Service, list[str]]:
    """Return the service `web` of a file, and the warnings."""
    path = directory / "compose.yml"
    path.write_text("services:\n  web:\n    image: i\n" + textwrap.indent(body, "    "))
    loaded = load([path], environment={})
    return loaded.project.services[0], [str(each) for each in loaded.warnings]


POLICY = "deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}\n"


@pytest.mark.parametrize(
    "body",
    [f"restart: unless-stopped\n{POLICY}", f"{POLICY}restart: unless-stopped\n"],
)
def test_the_restart_policy_takes_precedence_over_restart(tmp_path: Path, body: str) -> None:
    service, warnings = read(tmp_path, body)
    assert (service.restart.condition, service.restart.max_attempts) == ("on-failure", 3)
    (warning,) = warnings
    assert "precedence" in warning


@pytest.mark.parametrize(
    ("body", "condition"),
    [
        ("restart: always\ndeploy: {restart_policy: {condition: any}}\n", "any"),
        ("restart: always\ndeploy: {restart_policy: {delay: 2s}}\n", "any"),
        ("deploy: {restart_policy: {condition: unless-stopped}}\n", "any"),
        ("deploy: {restart_policy: {condition: 'no'}}\n", "none"),
    ],
)
def test_conditions_in_all_words(tmp_path: Path, body: str, condition: str) -> None:
    service, warnings = read(tmp_path, body)
    assert (service.restart.condition, warnings) == (condition, [])


def test_extra_hosts_come_before_names_of_services(tmp_path: Path) -> None:
    service, warnings = read(tmp_path, "extra_hosts: {web: 10.0.0.1, bank: 10.0.0.2}\n")
    assert dict(service.extra_hosts) == {"web": "10.0.0.1", "bank": "10.0.0.2"}
    (warning,) = warnings
    assert "the name of the service web leads to 10.0.0.1 here" in warning
