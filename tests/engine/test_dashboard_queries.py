"""Every query of the dashboard and every alert, run by a real Prometheus that scrapes a real
`/metrics`. A panel that would be empty in Grafana fails here."""

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from meshd.api.dto import Exposition
from meshd.api.server import serve
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.paths import ROOT

pytestmark = pytest.mark.prometheus
one_loop = pytest.mark.asyncio(loop_scope="module")

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/meshd.json").read_text())
ALERTS = YAML(typ="safe").load(DEPLOY / "prometheus/alerts.yml")["groups"][0]["rules"]
SCRAPES = 12
PROMETHEUS_PORT = 25790

PANELS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


class MovingControl(FakeControl):
    """A fake control whose counters grow with every scrape."""

    def __init__(self) -> None:
        super().__init__()
        self.ingest = Ingest()
        self.scrapes = 0
        self.counters = EventCounters()
        self.mesh = traffic.metrics(self.ingest, time.time(), live=True, counters=self.counters)

    async def metrics(self, accept: str) -> Exposition:
        self.scrapes += 1
        now = time.time()
        for worker in (1, 2):
            self.ingest.add(traffic.report(worker, 2 + self.scrapes, now))
        for event in traffic.events():
            self.counters.observe_event(event)
        self.counters.count_scale("shop/orders", "up", "load")
        self.counters.observe_start("shop/orders", 0.7)
        return await self.mesh.exposition(accept)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Run a Prometheus with the shipped configuration and a scrape interval of 0.2 s, after a dozen
    scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    control = MovingControl()
    async with serve(control, folder / "admin.sock", "127.0.0.1:0") as serving:
        config = (DEPLOY / "prometheus/prometheus.yml").read_text()
        config = config.replace("127.0.0.1:9900", serving.metrics_address)
        config = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 200ms", config)
        (folder / "prometheus.yml").write_text(config)
        (folder / "alerts.yml").write_text((DEPLOY / "prometheus/alerts.yml").read_text())
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{PROMETHEUS_PORT}/") as session:
                async with asyncio.timeout(60):
                    while control.scrapes < SCRAPES:
                        assert process.returncode is None, "Prometheus ended"
                        await asyncio.sleep(0.1)
                    while not await query(session, "up"):
                        await asyncio.sleep(0.1)
                yield session
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def get(session: aiohttp.ClientSession, path: str, **parameters: str) -> Any:
    async with session.get(f"api/v1/{path}", params=parameters) as answer:
        body = await answer.json()
        assert body["status"] == "success", body
        return body["data"]


async def query(session: aiohttp.ClientSession, expression: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(session, "query", query=expression))["result"]
    return found


def as_grafana(expression: str) -> str:
    """Return the query as Grafana sends it, with its variables replaced."""
    return expression.replace("$service", ".*").replace("$__rate_interval", "10s")


@one_loop
@pytest.mark.parametrize("expression", PANELS)
async def test_each_panel_has_data(prometheus: aiohttp.ClientSession, expression: str) -> None:
    assert "$" not in as_grafana(expression)
    result = await query(prometheus, as_grafana(expression))
    assert result, f"an empty panel: {expression}"
    values = [float(series["value"][1]) for series in result]
    assert all(map(math.isfinite, values)), result
    labels = [json.dumps(series["metric"], sort_keys=True) for series in result]
    assert len(set(labels)) == len(labels)


@one_loop
async def test_legends_name_existing_labels(prometheus: aiohttp.ClientSession) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for series in await query(prometheus, as_grafana(target["expr"])):
                assert wanted <= series["metric"].keys(), (panel["title"], series["metric"])


@one_loop
async def test_the_variable_and_the_annotation_have_data(
    prometheus: aiohttp.ClientSession,
) -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert match
    values = await get(prometheus, f"label/{match[2]}/values", **{"match[]": match[1]})
    assert sorted(values) == sorted(traffic.SERVICES)
    (annotation,) = DASHBOARD["annotations"]["list"]
    assert await query(prometheus, as_grafana(annotation["expr"]))


@one_loop
async def test_every_alert_is_evaluated_without_error(prometheus: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(30):
        while True:
            (group,) = (await get(prometheus, "rules"))["groups"]
            if all(rule["health"] != "unknown" for rule in group["rules"]):
                break
            await asyncio.sleep(0.1)
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in ALERTS]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


@one_loop
async def test_alerts_use_exposed_metrics(prometheus: aiohttp.ClientSession) -> None:
    for rule in ALERTS:
        for name in re.findall(r"meshd_\w+", rule["expr"]):
            assert await query(prometheus, name), f"{rule['alert']}: no {name}"


def series(name: str, labels: str, values: str) -> dict[str, str]:
    inside = ",".join(filter(None, ['service="shop/orders"', labels]))
    return {"series": f"{name}{{{inside}}}", "values": values}


def replicas(wanted: str, ready: str) -> list[dict[str, str]]:
    return [
        series("meshd_replicas", 'state="wanted"', wanted),
        series("meshd_replicas", 'state="ready"', ready),
    ]


def bound(override: str) -> list[dict[str, str]]:
    return [
        *replicas("5x60", "5x60"),
        series("meshd_replicas_bound", 'bound="min"', "1x60"),
        series("meshd_replicas_bound", 'bound="max"', "5x60"),
        series("meshd_scale_override", "", override),
    ]


def codes(good: str, bad: str) -> list[dict[str, str]]:
    return [
        series("meshd_requests_total", 'code="2xx",method="GET"', good),
        series("meshd_requests_total", 'code="5xx",method="GET"', bad),
    ]


def alone(name: str, values: str) -> list[dict[str, str]]:
    return [{"series": name, "values": values}]


CASES: list[tuple[str, list[dict[str, str]], str, bool]] = [
    ("MeshdDown", alone('up{job="meshd"}', "0x20"), "5m", True),
    ("MeshdDown", alone('up{job="meshd"}', "1x20"), "5m", False),
    ("MeshdRuntimeLost", alone("meshd_runtime_up", "0x20"), "5m", True),
    ("MeshdRuntimeLost", alone("meshd_runtime_up", "1x20"), "5m", False),
    ("MeshdStateNotWritable", alone("meshd_state_writable", "0x20"), "5m", True),
    ("MeshdStateNotWritable", alone("meshd_state_writable", "1x20"), "5m", False),
    ("MeshdReportsMissing", alone("meshd_reports_missing_total", "0+30x60"), "20m", True),
    ("MeshdReportsMissing", alone("meshd_reports_missing_total", "5x60"), "20m", False),
    ("ServiceWithoutReplicas", replicas("2x20", "0x20"), "5m", True),
    ("ServiceWithoutReplicas", replicas("0x20", "0x20"), "5m", False),
    ("ReplicasMissing", replicas("3x30", "2x30"), "12m", True),
    ("ReplicasMissing", replicas("3x30", "2x3 3x27"), "12m", False),
    ("ServiceErrors", codes("0+90x20", "0+10x20"), "10m", True),
    ("ServiceErrors", codes("0+990x20", "0+10x20"), "10m", False),
    ("ServiceAtItsMaximum", bound("0x60"), "40m", True),
    ("ServiceAtItsMaximum", bound("1x60"), "40m", False),
    ("RequestsRefused", [series("meshd_shed_total", "", "0+10x20")], "10m", True),
    ("RequestsRefused", [series("meshd_shed_total", "", "7x20")], "10m", False),
    ("ReplicasDying", alone('meshd_events_total{kind="replica.died"}', "0+1x20"), "15m", True),
    ("ReplicasDying", alone('meshd_events_total{kind="replica.died"}', "9x20"), "15m", False),
    ("RolloutFailed", [series("meshd_rollouts_total", 'result="failed"', "0x5 1x5")], "8m", True),
    ("RolloutFailed", [series("meshd_rollouts_total", 'result="done"', "0x5 1x5")], "8m", False),
]


def test_alerts_fire_exactly_when_they_should(tmp_path: Path) -> None:
    assert {case[0] for case in CASES if case[3]} == {rule["alert"] for rule in ALERTS}
    (tmp_path / "alerts.yml").write_text((DEPLOY / "prometheus/alerts.yml").read_text())
    # promtool compares labels and annotations too; ALERTS{} compares what fires alone.
    tests = [
        {
            "name": f"{alert} at {at}: {fires}",
            "interval": "1m",
            "input_series": input_series,
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, input_series, at, fires in CASES
    ]
    file = tmp_path / "cases.yml"
    with file.open("w") as out:
        YAML(typ="safe").dump({"rule_files": ["alerts.yml"], "tests": tests}, out)
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shipped_configuration_passes_promtool() -> None:
    config = DEPLOY / "prometheus/prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_the_dashboard_is_well_formed() -> None:
    source = YAML(typ="safe").load(DEPLOY / "grafana/provisioning/datasources/meshd.yml")
    (datasource,) = source["datasources"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
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
