"""docs/compose.md agrees with the code on every key, default and label."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from meshd.spec import labels, model
from meshd.spec.compose import load
from meshd.spec.reader import (
    deploy,
    host_files,
    networks,
    service,
    storage,
    unsupported_keys,
    values,
)
from meshd.spec.reader.context import ReadContext
from meshd.spec.reader.field_values import FieldValues
from meshd.spec.source import compose_schema
from meshd.spec.source.yaml_tree import parse_yaml
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "compose.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)

SECTIONS = {
    "SERVICE": "",
    "BUILD": "build.",
    "DEPLOY": "deploy.",
    "RESOURCE": "deploy.resources.*.",
    "PLACEMENT": "deploy.placement.",
    "RESTART": "deploy.restart_policy.",
    "HEALTHCHECK": "healthcheck.",
    "NETWORK": "networks.*.",
    "MOUNT": "volumes[].",
    "TOP": "(top) ",
    "TOP_NETWORK": "(top) networks.*.",
    "TOP_VOLUME": "(top) volumes.*.",
    "FILE": "(top) secrets.*.",
}
MODELS: dict[str, type[BaseModel]] = {
    "x-mesh": model.Mesh,
    "x-mesh.routes[]": model.RouteSpec,
    "x-mesh.routes[].request_headers": model.HeaderEdits,
    "x-mesh.routes[].response_headers": model.ResponseHeaderEdits,
    "x-mesh.routes[].rate_limit": model.RateLimit,
    "x-mesh.routes[].fault": model.Fault,
    "x-mesh.routes[].maintenance": model.MaintenanceSettings,
    "x-mesh.routes[].cors": model.CorsSettings,
    "x-mesh.routes[].compress": model.CompressionSettings,
    "x-mesh.routes[].basic_auth": model.BasicAuthSettings,
    "x-mesh.routes[].forward_auth": model.ForwardAuthSettings,
    "x-mesh.routes[].waiting_page": model.WaitingPageSettings,
    "x-mesh.scale": model.Scale,
    "x-mesh.scale.objective": model.Objective,
    "x-mesh.scale.prometheus": model.PrometheusQuery,
    "x-mesh.scale.schedule[]": model.ScalingSchedule,
    "x-mesh.schedule[]": model.JobSchedule,
    "x-mesh.health": model.HealthCheck,
    "x-mesh.balance": model.Balance,
    "x-mesh.drain": model.DrainSettings,
    "x-mesh.placement": model.PlacementSettings,
    "x-mesh.timeouts": model.Timeouts,
    "x-mesh.retries": model.Retries,
    "x-mesh.limits": model.LimitsSpec,
    "x-mesh.parking": model.ParkingSpec,
    "x-mesh.eject": model.EjectSpec,
    "x-mesh.upstream": model.UpstreamSpec,
    "x-mesh.upstream.tls": model.UpstreamTlsSpec,
    "x-mesh.rollout": model.RolloutSettings,
    "x-mesh.rollout.gate": model.CanaryAnalysisSettings,
    "x-mesh.rollout.before": model.Hook,
}


def rows(heading: str) -> dict[str, str]:
    """Return the rows of the table under a heading, by their first cell."""
    section = TEXT.split(f"\n{heading}\n", 1)[1]
    return dict(ROW.findall(re.split(r"\n##", section, maxsplit=1)[0]))


def reader() -> service._ServiceReader:
    none = storage.Declarations({}, {"secrets": {}, "configs": {}})
    names: frozenset[str] = frozenset()
    return service._ServiceReader(ReadContext(Path(), {}, none, names, names, names))


def test_supported_keys_of_a_service() -> None:
    assert set(rows("## Keys of a service")) == set(reader().key_table().read)


@pytest.mark.parametrize(
    ("kind", "heading"),
    [("WARNED", "### Keys with a warning"), ("REFUSED", "### Keys that are refused")],
)
def test_unsupported_keys(kind: str, heading: str) -> None:
    tables = {name for name in vars(unsupported_keys) if name.endswith(kind)}
    assert tables <= {f"{section}_{kind}" for section in SECTIONS}
    expected = {
        prefix + key: f"{text[0].upper()}{text[1:]}."
        for section, prefix in SECTIONS.items()
        for key, text in getattr(unsupported_keys, f"{section}_{kind}", {}).items()
    }
    assert rows(heading) == expected


def test_every_key_of_the_compose_specification_is_known() -> None:
    """The copy of the schema and the readers name the same keys, so that none is a surprise."""
    text = resources.files("meshd.spec").joinpath(compose_schema.SCHEMA_FILE).read_text("utf-8")
    schema = json.loads(text)
    kinds = schema["definitions"]
    service_schema = kinds["service"]["properties"]
    options = service_schema["volumes"]["items"]["oneOf"][1]["properties"]
    network = service_schema["networks"]["oneOf"][1]["patternProperties"]["^[a-zA-Z0-9._-]+$"]
    in_schema = {
        "services": service_schema,
        "networks": kinds["network"]["properties"],
        "volumes": kinds["volume"]["properties"],
        "mount": options,
        "attachment": network["oneOf"][0]["properties"],
        "deploy": kinds["deployment"]["properties"],
        "healthcheck": kinds["healthcheck"]["properties"],
        "build": service_schema["build"]["oneOf"][1]["properties"],
    }
    in_readers = {
        "services": reader().key_table(),
        "networks": networks.network_keys({}),
        "volumes": storage.declared_volume_keys({}),
        "mount": storage.mount_keys({}),
        "attachment": networks.attachment_keys({}),
        "deploy": deploy.deploy_keys(FieldValues()),
        "healthcheck": values.healthcheck_keys({}),
        "build": host_files.build_keys({}, reader().context),
    }
    added = {"services": {"x-mesh"}, "deploy": {"job"}}
    for name, keys in in_schema.items():
        assert set(in_readers[name].names()) - added.get(name, set()) == set(keys), name


def test_keys_of_deploy_with_their_defaults() -> None:
    documented = rows("### `deploy`")
    assert {key.partition(".")[0] for key in documented} == set(
        deploy.deploy_keys(FieldValues()).read
    )
    fields = {
        "restart_policy": model.RestartPolicy(),
        "update_config": model.UpdateConfig(),
    }
    for key, text in documented.items():
        section, _, field = key.partition(".")
        if section in fields:
            shown, default = text.split(" | ")[0], getattr(fields[section], field)
            if shown == "none":
                assert default is None, key
            else:
                assert written(type(fields[section]), field, shown) == default, key


@pytest.mark.parametrize("heading", list(MODELS))
def test_fields_of_x_mesh_with_their_defaults(heading: str) -> None:
    of = MODELS[heading]
    documented = rows(f"### `{heading}`")
    assert set(documented) == set(of.model_fields)
    for field, text in documented.items():
        shown = text.split(" | ")[0]
        default = of.model_fields[field].get_default()
        if shown == "see below":
            assert isinstance(default, BaseModel), field
            assert default == type(default)()
        elif shown == "none":
            assert not default or of.model_fields[field].is_required(), field
        else:
            assert written(of, field, shown) == default, field


def test_every_model_of_x_mesh_has_a_table() -> None:
    def inside(of: type[BaseModel]) -> set[type[BaseModel]]:
        found = {of}
        for field in of.model_fields.values():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    found |= inside(kind)
        return found

    assert set(MODELS.values()) == inside(model.Mesh)


def written(of: type[BaseModel], field: str, text: str) -> Any:
    """Return the default in the document, as the model reads it."""
    value = parse_yaml(re.sub(r"(?<!/)\*", "'*'", text.strip("`")), "docs").to_plain()
    fit = {"cron": "@daily", "duration": "1h", "url": "http://x", "origins": "http://x"}
    required = {
        name: fit.get(name, "1") for name, each in of.model_fields.items() if each.is_required()
    }
    if of is model.BasicAuthSettings:
        required["file"] = "users"
    data = {**required, field: value}
    return getattr(of.model_validate(data), field)


def test_the_labels() -> None:
    heading = "What meshd starts carries:\n\n| label | what it is |\n| --- | --- |"
    carried = rows(heading)
    assert set(carried) == {
        *labels.make_labels("p", "s", "r", "n", 1, "i"),
        labels.ATTEMPT,
        labels.CLONE_OF,
        labels.CONTAINER_NAME,
        labels.CREATED_WITH,
    }
    for label in rows("## Labels"):
        assert label.startswith(labels.PREFIX)


def test_the_first_example_loads(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(TEXT.split("```yaml\n")[1].split("```")[0])
    loaded = load([tmp_path / "compose.yml"], environment={})
    assert not loaded.warnings
    assert str(loaded.project.services[0].mesh.routes[0]) == "/orders"
