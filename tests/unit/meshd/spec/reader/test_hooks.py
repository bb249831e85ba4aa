"""Lifecycle hooks in a Compose file."""

from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from meshd.spec.model import ContainerHook, InitContainer, Service


def web(directory: Path, body: str) -> Service:
    path = directory / "compose.yml"
    path.write_text(f"services:\n  web:\n    image: i\n{body}")
    return load([path], environment={"TOKEN": "t"}).project.services[0]


def test_hooks_in_all_forms(tmp_path: Path) -> None:
    service = web(
        tmp_path,
        """
    pre_start:
      - {command: [migrate, --all]}
      - {command: chown app /data, image: tools, user: root, per_replica: true}
    post_start:
      - {command: ./seed.sh 'two words', working_dir: /app, environment: [A=1, TOKEN]}
    pre_stop:
      - {command: [flush], privileged: true, environment: {B: 2}}
""",
    )
    assert service.pre_start == (
        InitContainer(command=("migrate", "--all")),
        InitContainer(
            command=("chown", "app", "/data"), image="tools", user="root", per_replica=True
        ),
    )
    assert service.post_start == (
        ContainerHook(
            command=("./seed.sh", "two words"),
            working_dir="/app",
            environment={"A": "1", "TOKEN": "t"},
        ),
    )
    assert service.pre_stop == (
        ContainerHook(command=("flush",), privileged=True, environment={"B": "2"}),
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("    post_start: [{user: root}]\n", "command is missing; expected the command to run"),
        ("    pre_stop: [{command: [x], image: y}]\n", "image: unknown key"),
    ],
)
def test_hooks_that_are_refused(tmp_path: Path, body: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        web(tmp_path, body)
