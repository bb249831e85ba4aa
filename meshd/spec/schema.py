"""A JSON Schema of `x-mesh` for editors: `python -m meshd.spec.schema > docs/x-mesh.schema.json`.

It is generated from `meshd.spec.model`, with the short forms added. Editors use it for completion;
meshd itself checks files with `meshd.spec.compose`.
"""

import json
import sys
from typing import Any, Final

from meshd.spec.model import Mesh
from meshd.spec.model.proxy_settings import TopLevelSettings

Schema = dict[str, Any]
_SHORT: Final = (
    "HealthCheck",
    "Balance",
    "RouteSpec",
    "RateLimit",
    "JobSchedule",
    "PlacementSettings",
)
_LISTS: Final = ("routes", "allow")
_DURATION: Final[Schema] = {"type": ["string", "number"]}


def build_schema() -> Schema:
    """Return a schema of a Compose file that describes only `x-mesh`."""
    found = Mesh.model_json_schema()
    definitions: Schema = found.pop("$defs")
    for name in _SHORT:
        definitions[name] = {"anyOf": [{"type": "string"}, definitions[name]]}
    definitions["DrainSettings"] = {"anyOf": [_DURATION, definitions["DrainSettings"]]}
    definitions["TcpPortSpec"] = {"anyOf": [{"type": "integer"}, definitions["TcpPortSpec"]]}
    definitions["RateLimit"]["anyOf"].append({"type": "number"})
    for of, field in (
        (definitions["RouteSpec"]["anyOf"][1], "match"),
        (definitions["HeaderEdits"], "remove"),
        (definitions["ResponseHeaderEdits"], "remove"),
    ):
        of["properties"][field] = {"anyOf": [{"type": "string"}, of["properties"][field]]}
    _add_short_forms_of_filters(definitions)
    definitions["Scale"]["patternProperties"] = {r"^p\d{1,2}(\.\d+)?$": _DURATION}
    for name in _LISTS:
        many = found["properties"][name]
        found["properties"][name] = {"anyOf": [{"type": "string"}, many]}
    found["properties"]["tcp"]["anyOf"].insert(0, {"$ref": "#/$defs/TcpPortSpec"})
    schedules = found["properties"]["schedule"]
    found["properties"]["schedule"] = {"anyOf": [schedules["items"], schedules]}
    command = definitions["JobSchedule"]["anyOf"][1]["properties"]["command"]
    command["anyOf"].insert(0, {"type": "string"})
    definitions["Mesh"] = found
    top = TopLevelSettings.model_json_schema()
    definitions |= top.pop("$defs")
    log = top["properties"]["access_log"]
    top["properties"]["access_log"] = {"anyOf": [{"enum": ["off", "sampled", "on"]}, log]}
    trusted = top["properties"]["trusted_proxies"]
    top["properties"]["trusted_proxies"] = {"anyOf": [{"type": "string"}, trusted]}
    encrypted = definitions["UpstreamSpec"]["properties"]["tls"]
    encrypted["anyOf"].insert(0, {"type": "boolean"})
    hooks = definitions["BackupHooks"]
    command = {"anyOf": [{"type": "string"}, hooks["properties"]["quiesce"]]}
    hooks["properties"]["quiesce"] = command
    hooks["properties"]["resume"] = {"anyOf": [{"type": "string"}, hooks["properties"]["resume"]]}
    definitions["BackupHooks"] = {"anyOf": [*command["anyOf"], hooks]}
    top["properties"]["otlp"]["anyOf"].append({"type": "string"})
    definitions["NotifyTarget"] = {"anyOf": [{"type": "string"}, definitions["NotifyTarget"]]}
    targets = top["properties"]["notify"]
    top["properties"]["notify"] = {"anyOf": [targets["items"], targets]}
    definitions["TopLevelSettings"] = top
    service = {"type": "object", "properties": {"x-mesh": {"$ref": "#/$defs/Mesh"}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Compose file with x-mesh",
        "type": "object",
        "properties": {
            "services": {"type": "object", "additionalProperties": service},
            "x-mesh": {"$ref": "#/$defs/TopLevelSettings"},
        },
        "$defs": definitions,
    }


def _add_short_forms_of_filters(definitions: Schema) -> None:
    """Add the short forms of a route's filters."""
    route = definitions["RouteSpec"]["anyOf"][1]["properties"]
    for name in ("maintenance", "waiting_page"):
        route[name]["anyOf"] += [{"type": "boolean"}, {"type": "string"}]
    route["compress"]["anyOf"].append({"type": "boolean"})
    texts = {"type": "array", "items": {"type": "string"}}
    route["basic_auth"]["anyOf"] += [{"type": "string"}, texts]
    route["forward_auth"]["anyOf"].append({"type": "string"})
    route["cors"]["anyOf"] += [{"type": "string"}, texts]
    for of, field in (
        ("MaintenanceSettings", "allow"),
        ("CompressionSettings", "encodings"),
        ("CompressionSettings", "types"),
        ("BasicAuthSettings", "users"),
        ("ForwardAuthSettings", "headers"),
        *(("CorsSettings", each) for each in ("origins", "methods", "headers", "expose")),
    ):
        found = definitions[of]["properties"]
        found[field] = {"anyOf": [{"type": "string"}, found[field]]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(build_schema(), indent=2) + "\n")
