"""`extends` and `include`: what other files bring in, and where their paths and variables are."""

from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from meshd.spec.model import Project, Service


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def loaded(folder: Path, files: dict[str, str], *names: str, **variables: str) -> Project:
    write(folder, files)
    paths = [folder / name for name in names or ("compose.yml",)]
    return load(paths, environment=variables).project


def service(project: Project, name: str = "web") -> Service:
    return next(each for each in project.services if each.name == name)


def problems(folder: Path, files: dict[str, str]) -> list[str]:
    with pytest.raises(SpecError) as raised:
        loaded(folder, files)
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def test_a_service_starts_from_another_of_its_file(tmp_path: Path) -> None:
    text = """
services:
  base: &b
    image: base
    command: [run, base]
    environment: {A: "1", B: "1"}
    expose: [80]
  middle:
    extends: {service: base}
    environment: [B=2]
  web:
    extends: middle
    command: [run, web]
    environment: {C: "3"}
    expose: [81]
"""
    web = service(loaded(tmp_path, {"compose.yml": text}))
    assert web.image == "base"
    assert web.command == ("run", "web")
    assert web.environment == {"A": "1", "B": "2", "C": "3"}
    assert web.expose == (80, 81)
    assert service(loaded(tmp_path, {"compose.yml": text}), "base").environment == {
        "A": "1",
        "B": "1",
    }


def test_a_service_starts_from_one_of_another_file_with_the_paths_of_that(tmp_path: Path) -> None:
    files = {
        "compose.yml": """
services:
  web:
    extends: {file: parts/common.yml, service: app}
    volumes: ["./own:/own"]
""",
        "parts/common.yml": """
services:
  root: {image: "$IMAGE", volumes: ["./data:/data", "named:/named"]}
  app:
    extends: {service: root, file: ../deeper/one.yml}
    env_file: app.env
    build: {context: ./src}
    volumes: [{type: bind, source: ./more, target: /more}]
volumes: {named: {}}
""",
        "deeper/one.yml": "services: {root: {image: $IMAGE, volumes: ['./one:/one']}}\n",
        "parts/app.env": "FROM_FILE=yes\n",
        "parts/src/Dockerfile": "FROM scratch\n",
    }
    web = service(loaded(tmp_path, files, IMAGE="app:1"))
    assert web.image == "app:1"
    assert web.environment == {"FROM_FILE": "yes"}
    assert web.build is not None
    assert web.build.context == str(tmp_path / "parts/src")
    assert {mount.target: mount.source for mount in web.volumes} == {
        "/one": str(tmp_path / "deeper/one"),
        "/more": str(tmp_path / "parts/more"),
        "/own": str(tmp_path / "own"),
    }


def test_extends_is_taken_in_before_files_are_merged(tmp_path: Path) -> None:
    files = {
        "compose.yml": "services:\n  base: {image: a}\n  web: {extends: base, command: [x]}\n",
        "more.yml": "services:\n  web: {image: b, command: !reset null}\n",
    }
    web = service(loaded(tmp_path, files, "compose.yml", "more.yml"))
    assert (web.image, web.command) == ("b", None)


def test_what_is_included_has_a_directory_and_variables_of_its_own(tmp_path: Path) -> None:
    files = {
        ".env": "SHARED=top\n",
        "compose.yml": """
include:
  - shop/compose.yml
  - path: [bank/a.yml, bank/b.yml]
    project_directory: bank/home
    env_file: bank/own.env
services:
  web:
    image: web:$SHARED
    depends_on: [orders]
    secrets: [card]
""",
        "shop/.env": "SHARED=shop\nTAG=7\n",
        "shop/compose.yml": """
name: another
include: [nested/compose.yml]
services:
  orders:
    image: orders:$SHARED-$TAG
    volumes: ["./data:/data"]
    secrets: [card]
secrets: {card: {file: card.txt}}
""",
        "shop/card.txt": "1234",
        "shop/nested/compose.yml": "services: {deep: {image: deep, build: .}}\n",
        "bank/own.env": "TAG=9\n",
        "bank/home/.env": "TAG=none\n",
        "bank/a.yml": "services: {ledger: {image: ledger:$TAG, env_file: l.env}}\n",
        "bank/b.yml": "services: {ledger: {command: [run]}}\n",
        "bank/home/l.env": "L=1\n",
    }
    project = loaded(tmp_path, files)
    assert {each.name for each in project.services} == {"web", "orders", "deep", "ledger"}
    assert project.name != "another"
    assert service(project).image == "web:top"
    orders, ledger = service(project, "orders"), service(project, "ledger")
    assert orders.image == "orders:top-7"
    assert {mount.source for mount in orders.volumes} >= {
        str(tmp_path / "shop/data"),
        str(tmp_path / "shop/card.txt"),
    }
    deep = service(project, "deep").build
    assert deep is not None
    assert deep.context == str(tmp_path / "shop/nested")
    assert (ledger.image, ledger.command, ledger.environment) == ("ledger:9", ("run",), {"L": "1"})


def test_what_is_included_twice_must_be_the_same(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [a.yml, b.yml]\nservices: {web: {image: i}}\n",
        "a.yml": "services: {db: {image: d}}\nnetworks: {n: {internal: true}}\n",
        "b.yml": "networks: {n: {internal: true}}\nservices:\n"
        "  db: {image: d}\n  web: {image: x}\n",
    }
    (found,) = problems(tmp_path, files)
    assert found.startswith("b.yml:4: services.web stands in compose.yml:2 too, and differs; ")


def test_problems_keep_the_file_that_they_stand_in(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [a.yml]\nservices:\n  web: {extends: {file: c.yml, service: x}}\n",
        "a.yml": "services:\n  db:\n    image: d\n    privileged: true\n",
        "c.yml": "services:\n  x:\n    image: i\n    imag: i\n",
    }
    assert [each.partition(": ")[0] for each in problems(tmp_path, files)] == ["c.yml:4", "a.yml:4"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"compose.yml": "include: [no.yml]\nservices: {a: {image: i}}\n"}, "no.yml: there is no "),
        (
            {"compose.yml": "services:\n  web: {extends: {file: no.yml, service: x}}\n"},
            "no.yml: there is no such file",
        ),
        (
            {
                "compose.yml": "include: [{path: a.yml, env_file: no.env}]\n",
                "a.yml": "services: {a: {image: i}}\n",
            },
            "no.env: there is no such file",
        ),
        (
            {
                "compose.yml": "services:\n  web: {extends: {file: a.yml, service: x}}\n",
                "a.yml": "services: {a: {image: i}}\n",
            },
            "compose.yml:2: service web: extends: there is no service x in a.yml; expected ",
        ),
        (
            {
                "compose.yml": "include: [a.yml]\nservices: {web: {image: i}}\n",
                "a.yml": "include: [compose.yml]\n",
            },
            "a.yml:1: include[0]: compose.yml includes itself, by way of others; expected an end",
        ),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    assert any(each.startswith(said) for each in problems(tmp_path, files))
