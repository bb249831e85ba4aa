"""The alerts and recording rules: each fires exactly when it should, and leads to a runbook."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.paths import ROOT

FOLDER = ROOT / "deploy/prometheus"
RUNBOOKS = ROOT / "docs/runbooks.md"
FILES = ("recording.yml", "alerts.yml")
GROUPS = ["meshd-traffic", "meshd-objectives", "meshd", "meshd-burn-rates"]
ALERTS = [
    rule
    for group in YAML(typ="safe").load(FOLDER / "alerts.yml")["groups"]
    for rule in group["rules"]
]


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


SLOW = {"ObjectiveBurns": 10, "ObjectiveBurnsSlowly": 10, "ObjectiveBudgetGone": 30}
"""Minutes between two samples and evaluations, for alerts that look back over many hours. For the
others it is one minute."""


def objective(
    missed: int, of: int, hours: int, share: float = 0.99, step: int = 1
) -> list[dict[str, str]]:
    """`missed` of `of` requests in a step miss the objective, for some hours after an hour without
    a miss. `step`: minutes."""
    before, steps = 60 // step, hours * 60 // step
    return [
        series("meshd_objective_requests_total", "", f"0+{of}x{steps + before}"),
        series("meshd_objective_misses_total", "", f"0x{before} {missed}+{missed}x{steps}"),
        series("meshd_objective_ratio", "", f"{share}x{steps + before}"),
    ]


def certificate(days: int) -> list[dict[str, str]]:
    name = 'meshd_certificate_expiry_timestamp_seconds{name="shop.test",source="acme"}'
    return alone(name, f"{days * 86400}x60")


CRASH_LOOPS = 'meshd_events_total{kind="replica.crash-loop"}'
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
    ("ReplicaCrashLoop", alone(CRASH_LOOPS, "0x5 1x15"), "10m", True),
    ("ReplicaCrashLoop", alone(CRASH_LOOPS, "1x20"), "10m", False),
    ("CertificateExpires", certificate(6), "30m", True),
    ("CertificateExpires", certificate(8), "30m", False),
    ("CertificateExpires", certificate(0), "30m", False),
    ("LabelsOverflow", alone('meshd_label_overflows_total{metric="m"}', "0+5x60"), "50m", True),
    ("LabelsOverflow", alone('meshd_label_overflows_total{metric="m"}', "5x60"), "50m", False),
    # 20 % of the requests miss an objective of 99 %: 20 times the budget.
    ("ObjectiveBurnsFast", objective(20, 100, 3), "2h", True),
    ("ObjectiveBurnsFast", objective(8, 100, 3), "2h", False),
    ("ObjectiveBurnsFast", objective(20, 100, 3), "1h5m", False),
    ("ObjectiveBurnsFast", objective(1, 5, 3, 0.95), "2h", False),
    ("ObjectiveBurnsFast", objective(60, 100, 3, 0.9), "2h15m", True),
    ("ObjectiveBurnsFast", objective(50, 100, 3, 0.9), "2h15m", False),
    ("ObjectiveBurns", objective(8, 100, 8, step=10), "8h", True),
    ("ObjectiveBurns", objective(5, 100, 8, step=10), "8h", False),
    ("ObjectiveBurnsSlowly", objective(5, 100, 30, step=10), "30h", True),
    ("ObjectiveBurnsSlowly", objective(2, 100, 30, step=10), "30h", False),
    ("ObjectiveBudgetGone", objective(2, 100, 80, step=30), "80h", True),
    ("ObjectiveBudgetGone", objective(1, 200, 80, step=30), "80h", False),
]


@pytest.mark.prometheus
@pytest.mark.parametrize("step", [1, 10, 30])
def test_alerts_fire_exactly_when_they_should(tmp_path: Path, step: int) -> None:
    assert {case[0] for case in CASES if case[3]} == {rule["alert"] for rule in ALERTS}
    for name in FILES:
        (tmp_path / name).write_text((FOLDER / name).read_text())
    # promtool compares labels and annotations too; ALERTS{} compares what fires alone.
    tests = [
        {
            "name": f"{alert} at {at}: {fires}",
            "interval": f"{step}m",
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
        if SLOW.get(alert, 1) == step
    ]
    file = tmp_path / "cases.yml"
    with file.open("w") as out:
        YAML(typ="safe").dump(
            {
                "rule_files": list(FILES),
                "evaluation_interval": f"{step}m",
                # Rules that others read come first; the default order is arbitrary.
                "group_eval_order": GROUPS,
                "tests": tests,
            },
            out,
        )
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_the_shipped_files_pass_promtool() -> None:
    for command in (
        ("config", str(FOLDER / "prometheus.yml")),
        ("rules", *(str(FOLDER / name) for name in FILES)),
    ):
        done = subprocess.run(
            ["promtool", "check", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_each_alert_leads_to_its_runbook(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / page) == RUNBOOKS
    entries = re.split(r"(?m)^## ", RUNBOOKS.read_text())
    (entry,) = [each for each in entries if each.partition("\n")[0].lower() == anchor]
    assert anchor == str(rule["alert"]).lower()
    for part in ("**Meaning.**", "**Look first.**", "**Then.**"):
        assert part in entry
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_the_runbooks_have_no_entry_without_an_alert() -> None:
    titles = re.findall(r"(?m)^## (\w+)$", RUNBOOKS.read_text())
    assert titles == [rule["alert"] for rule in ALERTS]
