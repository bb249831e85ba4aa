"""Files are checked against the Compose Specification's schema, and all its keys are known."""

import json
from importlib import resources
from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.errors import Diagnostics, SpecError
from meshd.spec.source import compose_schema
from meshd.spec.source.merge import merge
from meshd.spec.source.yaml_tree import parse_yaml

SCHEMA = json.loads(
    resources.files("meshd.spec").joinpath(compose_schema.SCHEMA_FILE).read_text("utf-8")
)


def problems(tmp_path: Path, *texts: str) -> list[str]:
    files = [tmp_path / f"{number}.yml" for number, _ in enumerate(texts)]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    try:
        load(files, environment={})
    except SpecError as error:
        return [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "services:\n  web:\n    image: [i]\n",
            '3: service web: image: ["i"] does not match the Compose Specification; expected text',
        ),
        (
            "services:\n  web:\n    image: i\n    depends_on:\n      db:\n        restart: {}\n",
            "6: service web: depends_on.db.restart: {} does not match the Compose Specification; "
            "expected true or false or text",
        ),
        (
            "services:\n  web:\n    build:\n      context: .\n      colour: red\n",
            "5: service web: build.colour: unknown key; expected a key of the Compose Spec",
        ),
        ("services:\n  we b:\n    image: i\n", "2: service we b: unknown key; expected a key of "),
    ],
)
def test_schema_errors_have_a_line(text: str, expected: str) -> None:
    diagnostics = Diagnostics()
    compose_schema.check_against_schema(parse_yaml(text, "f"), diagnostics)
    (found,) = map(str, diagnostics.problems)
    assert found.startswith(f"f:{expected}")


@pytest.mark.parametrize(
    "text",
    [
        "services: {web: {image: i, user: 1000, command: [sleep, 1, 2.5, true]}}",
        "services: {web: {image: i, x-own: {any: thing}}}\nx-top: 1\n",
        "services: {web: {image: i, ports: [80, '81:80', {target: 82}], expose: [1, '2']}}",
        "services: {web: {image: i, environment: {A: 1, B: true, C: }, depends_on: [db]}}",
        "services: {web: {image: i, deploy: {replicas: '3', resources: {limits: {cpus: 1}}}}}",
        "services: {web: {image: !override i, labels: !reset [], ports: !reset null}}",
    ],
)
def test_valid_compose_files_have_no_schema_errors(text: str) -> None:
    diagnostics = Diagnostics()
    compose_schema.check_against_schema(merge([parse_yaml(text, "f")]), diagnostics)
    assert diagnostics.problems == []


def test_errors_of_the_readers_replace_schema_errors_on_the_same_line(tmp_path: Path) -> None:
    text = "services:\n  web:\n    imag: i\n    command: {a: b}\n"
    first, second, *more = problems(tmp_path, text)
    assert "did you mean image?" in first
    assert second.startswith("0.yml:4: service web: command: ")
    assert "Compose Specification" not in second
    assert all(":4:" not in other for other in more)


def test_the_result_of_merging_is_checked(tmp_path: Path) -> None:
    base = (
        "services:\n  a: {image: i, depends_on: {b: {condition: service_started}}}\n"
        "  b: {image: i}\n"
    )
    assert problems(tmp_path, base, "services: {a: {depends_on: {b: {required: false}}}}\n") == []


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ("build: {context: ., provenance: false, sbom: true, no_cache_filter: [a]}", ""),
        ("image: i\n    develop: {watch: [{path: ., action: sync, initial_sync: true}]}", ""),
        ("image: i\n    pre_start: [{command: [x], per_replica: true}]", ""),
    ],
)
def test_recent_keys_are_known(tmp_path: Path, body: str, refused: str) -> None:
    found = problems(tmp_path, f"services:\n  web:\n    {body}\n")
    assert not any("unknown" in each for each in found)
    assert [f"service web: {refused}: " in each for each in found] == [True] * bool(refused)


def test_each_file_is_checked(tmp_path: Path) -> None:
    good = "services: {web: {image: i}}\n"
    (found,) = problems(tmp_path, good, "services:\n  web:\n    annotations: 3\n")
    assert found.startswith("1.yml:3: service web: annotations: ")


def parts() -> list[tuple[str, str]]:
    """Return (YAML around a key, key) for every key of the main parts of the schema."""
    definitions = SCHEMA["definitions"]
    deploy = definitions["deployment"]["properties"]
    around = {
        "%s": SCHEMA["properties"],
        "services: {web: {%s}}": definitions["service"]["properties"],
        "services: {web: {image: i, deploy: {%s}}}": deploy,
        "services: {web: {image: i, deploy: {update_config: {%s}}}}": deploy["update_config"][
            "properties"
        ],
        "services: {web: {image: i, deploy: {restart_policy: {%s}}}}": deploy["restart_policy"][
            "properties"
        ],
        "services: {web: {image: i, healthcheck: {%s}}}": definitions["healthcheck"]["properties"],
        "networks: {n: {%s}}\nservices: {web: {image: i}}": definitions["network"]["properties"],
        "volumes: {v: {%s}}\nservices: {web: {image: i}}": definitions["volume"]["properties"],
        "secrets: {s: {%s}}\nservices: {web: {image: i}}": definitions["secret"]["properties"],
        "configs: {c: {%s}}\nservices: {web: {image: i}}": definitions["config"]["properties"],
    }
    return [(text, key) for text, keys in around.items() for key in keys]


@pytest.mark.parametrize(("around", "key"), parts())
def test_every_key_of_the_specification_is_known(tmp_path: Path, around: str, key: str) -> None:
    for problem in problems(tmp_path, around % f"{key}: {{}}"):
        assert "unknown key" not in problem, problem
