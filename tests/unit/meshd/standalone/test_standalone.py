"""Flags and file to the snapshot and configuration of a standalone proxy."""

from pathlib import Path
from typing import Any

import pytest

from meshd.cli.commands.proxy import raw_flags
from meshd.model.replica import ProbeResult
from meshd.spec.errors import SpecError
from meshd.standalone import build
from meshd.standalone.helper import is_unhealthy
from meshd.standalone.settings import StandaloneSettings, read_settings
from proxy.wire.snapshot import Endpoint, Generation


def settings(directory: Path, text: str, **flags: Any) -> StandaloneSettings:
    file = directory / "proxy.yml"
    file.write_text(text)
    return read_settings(str(file), raw_flags(flags))


@pytest.mark.parametrize(
    "text",
    [
        "to: 127.0.0.1:9\nbalance: random\ntimeouts: {connect: 500ms}\n",
        "to: [127.0.0.1:9]\nx-mesh:\n  balance: {algorithm: random}\n  timeouts: {connect: 0.5}\n",
        "to:\n- {address: 127.0.0.1:9}\nx-mesh: {balance: random}\ntimeouts: {connect: 0.5s}\n",
    ],
)
def test_policies_are_at_the_top_level_or_under_x_mesh(tmp_path: Path, text: str) -> None:
    found = settings(tmp_path, text)
    assert found.mesh.balance.algorithm == "random"
    assert found.mesh.timeouts.connect == 0.5
    assert [to.address for to in found.to] == ["127.0.0.1:9"]
    assert not found.probes


def test_flags_override_single_keys_of_a_section(tmp_path: Path) -> None:
    text = "to: 127.0.0.1:9\nhealth: /ready\nretries: {attempts: 5, budget: 0.5}\naccess_log: on\n"
    found = settings(
        tmp_path, text, retries=1, health_interval="3s", to=("127.0.0.1:1",), admin=None
    )
    assert (found.mesh.retries.attempts, found.mesh.retries.budget) == (1, 0.5)
    assert (found.mesh.health.path, found.mesh.health.interval) == ("/ready", 3.0)
    assert [to.address for to in found.to] == ["127.0.0.1:1"]
    assert found.access_log.mode == "on"
    assert found.probes


def test_flags_alone_are_enough() -> None:
    found = read_settings("", raw_flags({"to": ("127.0.0.1:9",), "health_path": "/ok"}))
    assert found.listen == ("127.0.0.1:8080",)
    assert found.mesh.health.path == "/ok"


def test_each_error_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as one:
        read_settings("", {"to": ["nonsense"]})
    assert [each.text for each in one.value.problems] == [
        "'nonsense' is not HOST:PORT, [V6]:PORT or unix:PATH"
    ]
    file = tmp_path / "proxy.yml"
    file.write_text("to: 127.0.0.1:9\ntimeouts: {head: 0s}\notlp: nope\naccess_log: loud\n")
    with pytest.raises(SpecError) as several:
        read_settings(str(file), {})
    assert sorted(str(each).removeprefix(str(file)) for each in several.value.problems) == [
        ":2: timeouts.head: '0s' is not valid; expected greater than 0",
        ":3: otlp.endpoint: 'nope' is not a valid URL; expected e.g. http://127.0.0.1:4318",
        ":4: access_log.mode: 'loud' is not valid; expected off, sampled or on",
    ]


def test_a_name_yields_all_its_addresses_without_duplicates() -> None:
    found = read_settings("", {"to": ["shop:80", "10.0.0.2:80", "unix:/run/a.sock", "[::1]:80"]})
    resolved = {"shop": ("10.0.0.1", "10.0.0.2"), "10.0.0.2": ("10.0.0.2",), "::1": ("::1",)}
    assert build.build_endpoints(found, resolved) == (
        Endpoint("10.0.0.1:80", "10.0.0.1", 80),
        Endpoint("10.0.0.2:80", "10.0.0.2", 80),
        Endpoint("unix:/run/a.sock", "", 0, path="/run/a.sock"),
        Endpoint("[::1]:80", "::1", 80),
    )


def test_the_snapshot_routes_all_requests_and_drains_unhealthy_endpoints() -> None:
    found = read_settings(
        "", {"to": ["10.0.0.1:80", "10.0.0.2:80"], "trusted_proxies": ["10.0.0.0/8"]}
    )
    resolved = {"10.0.0.1": ("10.0.0.1",), "10.0.0.2": ("10.0.0.2",)}
    made = build.build_snapshot(found, resolved, Generation(1, 1), unhealthy=["10.0.0.2:80"])
    assert [(e.id, e.state) for e in made.services[0].endpoints] == [
        ("10.0.0.1:80", "ready"),
        ("10.0.0.2:80", "draining"),
    ]
    assert [(r.host, r.path, r.targets[0].service) for r in made.routes] == [("*", "/", build.KEY)]
    assert made.trusted_proxies == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("given", "helper"),
    [
        ({}, False),
        ({"admin": "127.0.0.1:0"}, True),
        ({"health": {"path": "/ok"}}, True),
        ({"to": ["localhost:80"]}, True),
    ],
)
def test_the_helper_runs_only_if_needed(given: dict[str, Any], helper: bool) -> None:
    flags = {"to": ["127.0.0.1:80"], **given}
    found = read_settings("", flags)
    resolved = build.resolve_hosts(found, lambda _: ("127.0.0.1",))
    assert bool(build.build_supervisor_config(found, resolved, "", flags).children) is helper


@pytest.mark.parametrize(
    ("result", "unhealthy"),
    [
        (None, False),
        (ProbeResult(), False),
        (ProbeResult(first_good=1.0), False),
        (ProbeResult(bad=1), True),
        (ProbeResult(bad=2, first_good=1.0), False),
        (ProbeResult(bad=3, first_good=1.0), True),
    ],
)
def test_unhealthy_endpoints(result: ProbeResult | None, unhealthy: bool) -> None:
    assert is_unhealthy(result, failures=3) is unhealthy
