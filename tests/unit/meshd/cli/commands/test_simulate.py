"""`meshd simulate`: its JSON, its table and chart, and its errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshd.cli.commands.simulate import command


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "rush.csv"
    counts = [300, 300, 600, 900, 600, 300]
    rows = "".join(f"{at * 60},{count}\n" for at, count in enumerate(counts))
    path.write_text("t_seconds,count\n" + rows)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_json_has_every_policy_with_its_figures(trace: Path) -> None:
    found = call(
        "--trace", trace, "--bin", 60, "--peak", 30, "--policy", "ours,hpa-cpu,hpa-rps,kpa,oracle",
        "--workers", 4, "--queue", 50, "--service-mean", "100ms", "--service-cv", 0.5,
        "--startup", "5s-15s", "--objective", "400ms", "--share", 99.6, "--balancer", "hot-cold",
        "--min", 1, "--max", 200, "--warm", 0, "--seed", 1, "--jobs", 1, "-o", "json",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    printed = json.loads(found.output)
    assert set(printed) == {"trace", "settings", "seed", "policies"}
    assert printed["seed"] == 1
    assert printed["settings"]["startup"] == [5.0, 15.0]
    names = [policy["name"] for policy in printed["policies"]]
    assert names == ["ours", "hpa-cpu", "hpa-rps", "kpa", "oracle"]
    for policy in printed["policies"]:
        assert 0.0 <= policy["missed_pct"] <= 100.0
        assert 0.1 <= policy["replica_hours"] < 1.0
        assert policy["actions"] >= 0
        assert 0.0 < policy["p50_ms"] <= policy["p95_ms"] <= policy["p99_ms"]


@pytest.mark.parametrize("balancer", ["least-request", "round-robin", "peak-ewma", "p2c"])
def test_every_balancer_gets_requests(trace: Path, balancer: str) -> None:
    found = call("--trace", trace, "--balancer", balancer, "--policy", "fixed", "-o", "json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["policies"][0]["requests"] > 2000


def test_the_default_output_is_a_table_and_a_chart(trace: Path) -> None:
    found = call("--trace", trace, "--policy", "ours", "--balancer", "p2c")
    assert found.exit_code == 0, found.output
    assert "REPLICA-HOURS" in found.output.upper()
    assert "requests/s" in found.output
    assert "█" in found.output


def test_set_changes_a_setting_of_the_policy(trace: Path) -> None:
    arguments = ("--trace", trace, "--balancer", "p2c", "--peak", "100", "-o", "json", "--set")
    few = json.loads(call(*arguments, "concurrency=50").output)["policies"][0]
    many = json.loads(call(*arguments, "rps=2").output)["policies"][0]
    assert many["replica_hours"] > 3 * few["replica_hours"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--policy", "magic"], "no policy 'magic'"),
        (["--startup", "15s-5s"], "must not be longer"),
        (["--objective", "soon"], "is not a valid duration"),
        (["--set", "speed=9"], "no setting 'speed'"),
        (["--set", "p95=0s"], "latency 0.0: must be above 0"),
        (["--min", "5", "--max", "2"], "min 5, max 2"),
        (["--share", "100"], "100"),
    ],
)
def test_invalid_options_are_refused_by_name(
    trace: Path, arguments: list[str], expected: str
) -> None:
    found = call("--trace", trace, *arguments)
    assert found.exit_code == 2
    assert expected in found.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t_seconds,count\n0,1\n60,many\n", ":3: expected `t_seconds,count`"),
        ("t_seconds,count\n0,1\n60,-4\n", ":3: the count is below 0"),
        ("t_seconds,count\n0,1\n60,4\n90,4\n", "not evenly spaced"),
        ("t_seconds,count\n", "needs at least two rows"),
    ],
)
def test_an_invalid_trace_is_refused_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    found = call("--trace", path)
    assert found.exit_code == 2
    assert expected in found.output


def test_a_warm_pool_has_a_fixed_or_learned_size(trace: Path) -> None:
    arguments = ("--trace", trace, "--peak", "150", "--balancer", "p2c", "-o", "json", "--warm")
    none, two, learned = (json.loads(call(*arguments, size).output) for size in ("0", "2", "auto"))
    assert none["policies"][0]["warm_hours"] == 0.0 < two["policies"][0]["warm_hours"]
    assert learned["policies"][0]["warm_hours"] > 0.0
    assert (two["settings"]["warm"], learned["settings"]["warm"]) == (2, "auto")
    assert "expected a number of replicas, or auto" in call(*arguments, "many").output
