"""Every query of the dashboards and every recording rule, on a real Prometheus that scrapes a
running mesh with the shipped configuration. A panel that would be empty in Grafana fails here."""

import asyncio
import contextlib
import json
import math
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from deploy.grafana.generate import FOLDER, render
from tests.support.mesh import TestMesh
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.scaled import scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.prometheus
one_loop = pytest.mark.asyncio(loop_scope="module")

DEPLOY = ROOT / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
RULES = YAML(typ="safe").load(DEPLOY / "prometheus/recording.yml")["groups"]
ORIGIN = ROOT / "tests/support/caller_origin.py"
SERVICES = {
    "web": "{routes: [/web], scale: {min: 1, max: 4, p95: 100ms}}",
    "back": "{scale: {min: 1, max: 2, concurrency: 50}}",
    "shut": "{allow: [back]}",
    "late": "{routes: [/late], timeouts: {first_byte: 50ms}, retries: {attempts: 0}}",
    "lazy": "{routes: [/lazy], scale: {min: 0, max: 1, concurrency: 50, idle: 1s}}",
}
PATHS = ("/web", "/web/call/back", "/web/call/shut", "/web/bad", "/late/slow", "/nowhere")
PAUSE = 0.02
"""Seconds between two rounds of requests."""


def compose() -> str:
    services = {
        name: f"  {name}:\n    command: [{sys.executable}, {ORIGIN}]\n    x-mesh: {policy}\n"
        for name, policy in SERVICES.items()
    }
    return "name: shop\nservices:\n" + "".join(services.values())


async def send(mesh: TestMesh, session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(f"http://{mesh.address}{path}") as answer:
        await answer.read()
        return answer.status


@contextlib.asynccontextmanager
async def traffic(mesh: TestMesh) -> AsyncIterator[None]:
    """Send requests until the end."""
    ended = asyncio.Event()

    async def run() -> None:
        while not ended.is_set():
            for path in PATHS:
                await send(mesh, session, path)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PAUSE)

    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(run())
        try:
            yield
        finally:
            ended.set()
            await running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """Run a mesh under requests, and a Prometheus that has scraped it several times."""
    folder = tmp_path_factory.mktemp("prometheus")
    async with scaled_mesh() as mesh:
        address = f"127.0.0.1:{free_port()}"
        done = await mesh.up(compose(), "--metrics", address)
        assert done.code == 0, done.out + done.err
        await mesh.until("lazy", lambda s: s["wanted"] == 0 and not s["replicas"], 30)
        async with aiohttp.ClientSession() as session:
            assert await send(mesh, session, "/lazy") == 200
            assert await send(mesh, session, "/web/call/shut") == 403
            assert await send(mesh, session, "/web/call/back") == 200
        async with traffic(mesh), running_prometheus(configure(folder, address)) as found:
            count = 'count_over_time(up{job="meshd"}[1m]) >= 5'
            await found.wait_for(count)
            await wait_until(lambda: is_evaluated(found), 20.0, "evaluated rules", 0.1)
            yield found


def configure(folder: Path, address: str) -> Path:
    """Write the shipped configuration with another address and short intervals. The interval is
    also the time that a scrape may take: one that takes longer makes the series stale."""
    text = (DEPLOY / "prometheus/prometheus.yml").read_text().replace("127.0.0.1:9900", address)
    text = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", text)
    for name in ("recording.yml", "alerts.yml"):
        (folder / name).write_text((DEPLOY / "prometheus" / name).read_text())
    config = folder / "prometheus.yml"
    config.write_text(text)
    return config


async def rules(server: Prometheus) -> list[dict[str, Any]]:
    found = await server.get("rules")
    return [rule for group in found["groups"] for rule in group["rules"]]


async def is_evaluated(server: Prometheus) -> bool:
    found = await rules(server)
    names = {rule["record"] for group in RULES for rule in group["rules"]}
    if any(rule["health"] == "unknown" for rule in found):
        return False
    return all([await server.query(name) for name in names])


def as_grafana(expression: str) -> str:
    """Return the query as Grafana sends it, with its variables replaced."""
    return expression.replace("$service", ".*").replace("$__rate_interval", "10s")


@one_loop
@pytest.mark.parametrize("name", DASHBOARDS)
async def test_each_panel_has_data(server: Prometheus, name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        for target in panel.get("targets", ()):
            expression = as_grafana(target["expr"])
            assert "$" not in expression
            result = await server.wait_for(expression, f"an empty panel: {panel['title']}")
            values = [float(series["value"][1]) for series in result]
            assert all(map(math.isfinite, values)), (panel["title"], result)
            labels = [json.dumps(series["metric"], sort_keys=True) for series in result]
            assert len(set(labels)) == len(labels)
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for series in result:
                assert wanted <= series["metric"].keys(), (panel["title"], series["metric"])


@one_loop
async def test_variables_and_annotations_have_data(server: Prometheus) -> None:
    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert match
            values = await server.get(f"label/{match[2]}/values", **{"match[]": match[1]})
            assert sorted(values) == sorted(f"shop/{service}" for service in SERVICES)
        for annotation in dashboard["annotations"]["list"]:
            assert await server.query(as_grafana(annotation["expr"]).replace("> 0", ">= 0"))


@one_loop
async def test_every_rule_is_evaluated_and_reads_exposed_metrics(server: Prometheus) -> None:
    found = await rules(server)
    assert {rule["health"] for rule in found} == {"ok"}
    for rule in found:
        if rule["type"] == "recording":
            assert await server.query(rule["name"]), rule["name"]
    exposed = set(await server.get("label/__name__/values"))
    for rule in found:
        if rule["type"] == "alerting":
            names = re.findall(r"(?:service:)?meshd_[\w:]+", rule["query"])
            assert set(names) - OPTIONAL <= exposed, rule["name"]


OPTIONAL = {"meshd_certificate_expiry_timestamp_seconds"}
"""Metrics that a mesh without certificates does not have."""


def test_the_files_of_the_dashboards_are_up_to_date() -> None:
    files = {path.name: path.read_text() for path in FOLDER.glob("*")}
    assert files == dict(render()), "run python -m deploy.grafana.generate"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_well_formed(name: str) -> None:
    source = YAML(typ="safe").load(DEPLOY / "grafana/provisioning/datasources/meshd.yml")
    (datasource,) = source["datasources"]
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == datasource["uid"]
