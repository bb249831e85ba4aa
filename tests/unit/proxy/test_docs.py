"""docs/proxy.md against the code: every setting, default, limit and failure."""

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from meshd.spec import model
from meshd.spec.model import proxy_settings, tls_settings
from meshd.spec.source.yaml_tree import parse_yaml
from meshd.standalone import settings
from proxy.http1 import limits
from proxy.policy import retry
from proxy.request import failure
from proxy.wire.snapshot import Algorithm
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "proxy.md").read_text()
MODELS: dict[str, type[BaseModel]] = {
    "### Routes": model.RouteSpec,
    "### Balancing: `balance`": model.Balance,
    "### Deadlines: `timeouts`": model.Timeouts,
    "### Retries: `retries`": model.Retries,
    "### Limits: `limits`": model.LimitsSpec,
    "### Waiting for an endpoint: `parking`": model.ParkingSpec,
    "### Ejection: `eject`": model.EjectSpec,
    "### Ending: `drain`": model.DrainSettings,
    "### Connections to endpoints: `upstream`": model.UpstreamSpec,
    "### Access log: `access_log`": proxy_settings.AccessLogSettings,
    "## HTTPS: `tls`": tls_settings.TlsSettings,
}
NOT_HERE = {
    "schedule",
    "port",
    "tcp",
    "scale",
    "health",
    "allow",
    "audit",
    "enforce",
    "routes",
    "trace",
    "rollout",
    "placement",
    "protocol",
}
"""Parts of `x-mesh` that are not policies of the request path, or have a separate section."""


def table(heading: str, columns: str) -> list[list[str]]:
    """Return the rows of the first table with these columns under a heading."""
    section = re.split(r"\n##", TEXT.split(f"\n{heading}\n", 1)[1], maxsplit=1)[0]
    body = section.split(f"| {columns} |\n", 1)[1].split("\n", 1)[1]
    rows = body.split("\n\n", 1)[0].strip().split("\n")
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def fields(of: type[BaseModel]) -> dict[str, tuple[type[BaseModel], str]]:
    """Return the dotted names of all plain fields of a model, with their model and name."""
    found = {}
    for name, field in of.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner:
            found |= {f"{name}.{deeper}": place for deeper, place in fields(inner[0]).items()}
        else:
            found[name] = (of, name)
    return found


@pytest.mark.parametrize("heading", MODELS)
def test_every_policy_with_its_default(heading: str) -> None:
    documented = {
        row[0].strip("`"): row[1] for row in table(heading, "field | default | unit | meaning")
    }
    expected = fields(MODELS[heading])
    assert set(documented) == set(expected)
    for dotted, shown in documented.items():
        of, name = expected[dotted]
        default = of.model_fields[name].get_default()
        if shown == "none":
            assert not default or of.model_fields[name].is_required(), dotted
        else:
            assert written(of, name, shown) == default, dotted


def written(of: type[BaseModel], name: str, text: str) -> Any:
    """Return a default of the page as the model parses it."""
    value = parse_yaml(re.sub(r"(?<!/)\*", "'*'", text.strip("`")), "docs").to_plain()
    value = "off" if value is False and name == "mode" else value
    fit = {"origins": "https://x"}
    needed = [each for each, field in of.model_fields.items() if field.is_required()]
    required = {each: fit.get(each, "1") for each in needed}
    if of is tls_settings.TlsSettings:
        required = {"cert": "1"}
    if of is model.BasicAuthSettings:
        required = {"file": "users"}
    return getattr(of.model_validate({**required, name: value}), name)


def test_every_part_of_x_mesh_has_a_section() -> None:
    parts = {re.search(r"`(\w+)`", heading) for heading in MODELS}
    named = {part.group(1) for part in parts if part is not None}
    assert set(model.Mesh.model_fields) - NOT_HERE == named - {"access_log", "tls"}
    assert "### Tracing: `trace`" in TEXT
    assert model.Mesh().trace is None


def test_every_algorithm() -> None:
    rows = table("### Balancing: `balance`", "algorithm | behaviour")
    assert [row[0].strip("`") for row in rows] == list(get_args(Algorithm))


def test_every_proxy_setting() -> None:
    found = table("## Stand-alone", "setting | default | meaning")
    rows = {row[0].strip("`"): row[1] for row in found}
    assert set(rows) == set(settings.StandaloneSettings.model_fields) - {"mesh", "probes"}
    made = settings.StandaloneSettings.model_validate({"to": "127.0.0.1:9"})
    assert rows["listen"].strip("`") == made.listen[0]
    assert int(rows["workers"].strip("`")) == made.workers
    assert rows["access_log"].strip("`") == made.access_log.mode
    for name in ("mirror", "admin", "pid_file", "trusted_proxies"):
        assert rows[name] == "none"
        assert not getattr(made, name)


def test_the_example_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "front.yml"
    file.write_text(TEXT.split("```yaml\n")[1].split("```")[0])
    found = settings.read_settings(str(file), {})
    assert [str(route) for route in found.mesh.routes] == ["/api", "/ (header:X-Canary)", "/"]


def test_every_bound_of_a_message() -> None:
    rows = table("## What it does to a message", "limit | value | meaning")
    assert {row[0].strip("`"): int(row[1].strip("`")) for row in rows} == {
        name: value for name, value in vars(limits).items() if name.isupper()
    }


def test_the_fixed_deadlines() -> None:
    for name, seconds, _ in table("### Deadlines: `timeouts`", "limit | seconds | meaning"):
        module, _, constant = name.strip("`").rpartition(".")
        found = getattr(importlib.import_module(f"proxy.{module}"), constant)
        assert found == float(seconds.strip("`")), name


def test_every_failure() -> None:
    rows = table("## Failures", "reason | status | text | blamed | again")
    documented = {row[0].strip("`"): tuple(row[1:]) for row in rows}
    assert documented == {
        each.reason: (
            str(each.status),
            each.text,
            "yes" if each.blame else "no",
            "yes" if each.cause and set(retry._TABLE[each.cause]) != {"no"} else "no",
        )
        for each in vars(failure).values()
        if isinstance(each, failure.Failure)
    }
