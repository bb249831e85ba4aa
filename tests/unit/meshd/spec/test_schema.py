"""The schema for editors is generated from the models, and has the short forms."""

import json
from typing import Any

from meshd.spec.model import Mesh
from meshd.spec.schema import build_schema
from tests.support.paths import ROOT


def test_the_file_is_up_to_date() -> None:
    """Regenerate it with: python -m meshd.spec.schema > docs/x-mesh.schema.json"""
    assert json.loads((ROOT / "docs" / "x-mesh.schema.json").read_text()) == build_schema()


def test_every_reference_exists() -> None:
    found = build_schema()

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            inside = {each for value in node.values() for each in references(value)}
            return inside | ({node["$ref"]} if "$ref" in node else set())
        if isinstance(node, list):
            return {each for value in node for each in references(value)}
        return set()

    assert references(found) <= {f"#/$defs/{name}" for name in found["$defs"]}


def test_the_schema_has_the_short_forms() -> None:
    definitions = build_schema()["$defs"]
    assert set(definitions["Mesh"]["properties"]) == set(Mesh.model_fields)
    for name in ("HealthCheck", "Balance", "RouteSpec", "RateLimit"):
        assert {"type": "string"} in definitions[name]["anyOf"]
    for name in ("routes", "allow"):
        assert {"type": "string"} in definitions["Mesh"]["properties"][name]["anyOf"]
    assert "p95" not in definitions["Scale"]["properties"]
    assert list(definitions["Scale"]["patternProperties"]) == [r"^p\d{1,2}(\.\d+)?$"]
    assert definitions["Timeouts"]["properties"]["connect"]["type"] == ["string", "number"]
