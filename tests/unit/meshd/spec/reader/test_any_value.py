"""Any file yields a project or a SpecError, and no other exception."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshd.spec import model
from meshd.spec.compose import LoadedProject, load
from meshd.spec.errors import SpecError
from meshd.spec.labels import adopt
from meshd.spec.model import Mesh, Project
from meshd.spec.reader import unsupported_keys

MODELS = (
    model.Service,
    model.Build,
    model.Healthcheck,
    model.Mount,
    model.Mesh,
    model.Scale,
    model.HealthCheck,
    model.RouteSpec,
    model.Balance,
    model.Retries,
)
WORDS = st.sampled_from(
    ["", "web", "db", "/a", "a:b", "a=b", "1s", "64m", "80", "80:80", "-1", "1.5", "true", "null",
     "*", "CMD", "NONE", "bind", "tcp", "p95", "a/b", "${A}", "${A:-x}", "${A:?x}", "$", "é", "\n"]
)  # fmt: skip
SCALARS = WORDS | st.integers(-2, 70000) | st.booleans() | st.none() | st.floats(-1, 2)
KEYS = st.sampled_from(
    sorted(
        {
            *unsupported_keys.SERVICE_REFUSED,
            *unsupported_keys.SERVICE_WARNED,
            *(name for of in MODELS for name in of.model_fields),
            *("x-mesh", "x-a", "deploy", "ports", "env_file", "tmpfs", "secrets", "configs"),
            *("restart", "cpus", "mem_limit", "profiles", "limits", "memory", "condition"),
            *("restart_policy", "update_config", "constraints", "hard", "soft", "p95"),
        }
    )
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=4),
    max_leaves=8,
)
SERVICES = st.dictionaries(KEYS, VALUES, max_size=5)
TOP = st.dictionaries(
    st.sampled_from(
        ["name", "networks", "volumes", "secrets", "configs", "x-a", "version",
         *unsupported_keys.TOP_REFUSED]
    ),
    VALUES,
    max_size=3,
)  # fmt: skip


def try_load(path: Path, *trees: object) -> LoadedProject | None:
    paths = []
    for index, tree in enumerate(trees):
        paths.append(path / f"{index}.yml")
        paths[-1].write_text(json.dumps(tree))  # JSON is YAML
    try:
        return load(paths, environment={"A": "1"})
    except SpecError as error:
        problems = error.problems
    assert problems
    assert all(problem.text and problem.location.file for problem in problems)
    return None


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(web=SERVICES, over=SERVICES, top=TOP)
@example(web={"x-mesh": {"scale": {"min": None}}}, over={}, top={})
@example(web={"environment": [None]}, over={"environment": {"a": 1}}, top={})
def test_any_two_files(directory: Path, web: Any, over: Any, top: Any) -> None:
    base = {"services": {"web": {"image": "i", **web}, "db": {"image": "d"}}, **top}
    loaded = try_load(directory, base, {"services": {"web": over}})
    if loaded is not None:
        sent = loaded.project.model_dump_json()
        assert Project.model_validate_json(sent) == loaded.project


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mesh=st.dictionaries(st.sampled_from(sorted(Mesh.model_fields)), VALUES, max_size=4))
def test_any_x_mesh(directory: Path, mesh: Any) -> None:
    try_load(directory, {"services": {"web": {"image": "i", "x-mesh": mesh}}})


@settings(max_examples=100, deadline=None)
@given(
    marks=st.dictionaries(
        st.lists(st.sampled_from([*Mesh.model_fields, "route", "min", "p95", ""]), max_size=3).map(
            lambda path: ".".join(["mesh", *path])
        ),
        WORDS,
        max_size=4,
    )
)
def test_any_labels(marks: dict[str, str]) -> None:
    with suppress(SpecError):
        assert adopt("c", {"mesh.service": "web", **marks})[1].name == "web"


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ab:-{}[]&*!<>|'\"#\n ?$,%@`", max_size=40))
def test_any_text(directory: Path, text: str) -> None:
    path = directory / "text.yml"
    path.write_text(text)
    with pytest.raises(SpecError):
        load([path], environment={})
