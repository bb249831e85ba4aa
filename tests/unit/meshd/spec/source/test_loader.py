"""`extends` and `include`: the contents, paths and variables of other files."""

from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from meshd.spec.model import Logging, Mount, Project, Service, Ulimit


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load_project(folder: Path, files: dict[str, str], *names: str, **variables: str) -> Project:
    write(folder, files)
    paths = [folder / name for name in names or ("compose.yml",)]
    return load(paths, environment=variables).project


def service(project: Project, name: str = "web") -> Service:
    return next(each for each in project.services if each.name == name)


def problems(folder: Path, files: dict[str, str]) -> list[str]:
    with pytest.raises(SpecError) as raised:
        load_project(folder, files)
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def test_extends_a_service_of_the_same_file(tmp_path: Path) -> None:
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
    web = service(load_project(tmp_path, {"compose.yml": text}))
    assert web.image == "base"
    assert web.command == ("run", "web")
    assert web.environment == {"A": "1", "B": "2", "C": "3"}
    assert web.expose == (80, 81)
    assert service(load_project(tmp_path, {"compose.yml": text}), "base").environment == {
        "A": "1",
        "B": "1",
    }


def test_extends_a_service_of_another_file_with_its_paths(tmp_path: Path) -> None:
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
    web = service(load_project(tmp_path, files, IMAGE="app:1"))
    assert web.image == "app:1"
    assert web.environment == {"FROM_FILE": "yes"}
    assert web.build is not None
    assert web.build.context == str(tmp_path / "parts/src")
    assert {mount.target: mount.source for mount in web.volumes} == {
        "/one": str(tmp_path / "deeper/one"),
        "/more": str(tmp_path / "parts/more"),
        "/own": str(tmp_path / "own"),
    }


def test_extends_is_resolved_before_files_are_merged(tmp_path: Path) -> None:
    files = {
        "compose.yml": "services:\n  base: {image: a}\n  web: {extends: base, command: [x]}\n",
        "more.yml": "services:\n  web: {image: b, command: !reset null}\n",
    }
    web = service(load_project(tmp_path, files, "compose.yml", "more.yml"))
    assert (web.image, web.command) == ("b", None)


def test_included_files_have_their_own_directory_and_variables(tmp_path: Path) -> None:
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
    project = load_project(tmp_path, files)
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


def test_a_file_is_merged_over_what_it_includes(tmp_path: Path) -> None:
    files = {
        "compose.yml": """
include: [a.yml, b.yml]
services:
  web: {environment: {B: "2"}, labels: !override [own=1], user: !reset null}
networks: {n: {internal: true}}
""",
        "a.yml": """
services:
  web: {image: a, environment: {A: "1", B: "1"}, labels: [theirs=1], user: u, networks: [n]}
networks: {n: {internal: true}}
""",
        "b.yml": "services: {web: {image: b, command: [x], expose: [1]}}\n",
    }
    web = service(load_project(tmp_path, files))
    assert (web.image, web.command, web.expose, web.user) == ("a", ("x",), (1,), "")
    assert (web.environment, web.labels) == ({"A": "1", "B": "2"}, {"own": "1"})
    assert web.networks == ("n",)


def test_a_service_can_extend_an_included_one(tmp_path: Path) -> None:
    files = {
        "compose.yml": """
include: [base.yml]
services:
  worker: {extends: {service: base}, environment: {C: "3"}}
""",
        "base.yml": "services: {base: {image: x, environment: {A: '1'}, volumes: ['./d:/d']}}\n",
    }
    worker = service(load_project(tmp_path, files), "worker")
    assert worker.environment == {"A": "1", "C": "3"}
    assert worker.volumes[0].source == str(tmp_path / "d")


def test_names_without_a_value_have_that_of_the_env_file_of_their_include(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [{path: m/compose.yml, env_file: own.env}]\n",
        "own.env": "V=own\nSET=own\n",
        "m/compose.yml": "services: {web: {image: x, environment: [V, SET, NOPE]}}\n",
    }
    web = service(load_project(tmp_path, files, SET="outer"))
    assert web.environment == {"V": "own", "SET": "outer"}


def test_a_file_may_have_several_documents_and_an_overlay_none(tmp_path: Path) -> None:
    files = {
        "compose.yml": "services: {web: {image: a, expose: [1]}}\n---\n# none\n---\n"
        "services: {web: {image: b, expose: [2]}, other: {extends: base}, base: {image: c}}\n",
        "empty.yml": "# nothing yet\n",
        "null.yml": "---\n",
    }
    project = load_project(tmp_path, files, "compose.yml", "empty.yml", "null.yml")
    assert (service(project).image, service(project).expose) == ("b", (1, 2))
    assert service(project, "other").image == "c"


MERGES = [
    ("environment: [A=1]", "environment: {B: 2}", "environment", {"A": "1", "B": "2"}),
    ("env_file: a.env", "env_file: b.env", "environment", {"A": "1", "B": "2"}),
    ("env_file: [b.env, a.env]", "env_file: [{path: b.env}]", "environment", {"A": "1", "B": "2"}),
    ("dns: 9.9.9.9", "dns: [8.8.8.8]", "dns", ("9.9.9.9", "8.8.8.8")),
    ("dns_search: a", "dns_search: b", "dns_search", ("a", "b")),
    ("extra_hosts: ['h:10.0.0.1']", "extra_hosts: {h: 10.0.0.2, k: '[::1]'}", "extra_hosts",
     {"h": "10.0.0.1,10.0.0.2", "k": "::1"}),
    ("extra_hosts: {h: [10.0.0.1, 10.0.0.2]}", "extra_hosts: ['h=10.0.0.1']", "extra_hosts",
     {"h": "10.0.0.1,10.0.0.2"}),
    ("logging: {driver: json-file, options: {max-size: 1m}}",
     "logging: {driver: syslog, options: {tag: t}}", "logging",
     Logging(driver="syslog", options={"tag": "t"})),
    ("logging: {driver: json-file, options: {max-size: 1m}}", "logging: {options: {tag: t}}",
     "logging", Logging(driver="json-file", options={"max-size": "1m", "tag": "t"})),
    ("ulimits: {nofile: {soft: 1, hard: 2}}", "ulimits: {nofile: 3}", "ulimits",
     {"nofile": Ulimit(soft=3, hard=3)}),
    ("depends_on: {b: {condition: service_healthy}}", "depends_on: {b: {required: false}}",
     "wait_healthy", ("b",)),
    ("depends_on: {b: {condition: service_healthy}}", "depends_on: [b]", "wait_healthy", ()),
    ("volumes: ['./x:/v/']", "volumes: ['named:/v']", "volumes",
     (Mount(type="volume", source="named", target="/v"),)),
    ("tmpfs: /run:size=1m", "tmpfs: ['/run/', /tmp]", "volumes",
     (Mount(type="tmpfs", target="/run"), Mount(type="tmpfs", target="/tmp"))),
]  # fmt: skip


@pytest.mark.parametrize(("base", "over", "field", "expected"), MERGES)
def test_merged_values(tmp_path: Path, base: str, over: str, field: str, expected: object) -> None:
    files = {
        "compose.yml": f"services:\n  web:\n    image: i\n    {base}\n  b: {{image: i}}\n"
        "volumes: {named: }\n",
        "over.yml": f"services:\n  web:\n    {over}\n",
        "a.env": "A=1\n",
        "b.env": "B=2\n",
    }
    found = service(load_project(tmp_path, files, "compose.yml", "over.yml"))
    assert getattr(found, field) == expected


def test_errors_name_the_right_file(tmp_path: Path) -> None:
    files = {
        "compose.yml": "include: [a.yml]\nservices:\n  web: {extends: {file: c.yml, service: x}}\n",
        "a.yml": "services:\n  db:\n    image: d\n    provider: {type: x}\n",
        "c.yml": "services:\n  x:\n    image: i\n    imag: i\n",
    }
    assert [each.partition(": ")[0] for each in problems(tmp_path, files)] == ["a.yml:4", "c.yml:4"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"compose.yml": "include: [no.yml]\nservices: {a: {image: i}}\n"},
            "no.yml: no such file",
        ),
        (
            {"compose.yml": "services:\n  web: {extends: {file: no.yml, service: x}}\n"},
            "no.yml: no such file",
        ),
        (
            {
                "compose.yml": "include: [{path: a.yml, env_file: no.env}]\n",
                "a.yml": "services: {a: {image: i}}\n",
            },
            "no.env: no such file",
        ),
        (
            {
                "compose.yml": "services:\n  web: {extends: {file: a.yml, service: x}}\n",
                "a.yml": "services: {a: {image: i}}\n",
            },
            "compose.yml:2: service web: extends: a.yml has no service x; expected ",
        ),
        (
            {
                "compose.yml": "include: [a.yml]\nservices: {web: {image: i}}\n",
                "a.yml": "include: [compose.yml]\n",
            },
            "a.yml:1: include[0]: compose.yml includes itself, directly or through other files; "
            "remove the cycle",
        ),
    ],
)
def test_errors_of_missing_files_and_services(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    assert any(each.startswith(message) for each in problems(tmp_path, files))
