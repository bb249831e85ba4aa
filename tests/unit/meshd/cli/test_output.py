"""Formatting of values, tables and progress, and the configuration of a daemon."""

import dataclasses
import json
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from meshd.api.dto import ReplicaStatus, ServiceStatus, Status
from meshd.cli import daemon_process, output, proxy_options, spec_options, tables
from meshd.cli.api_options import read_page_settings
from meshd.cli.commands.events import matches
from meshd.cli.deploy_progress import ProgressReport, ServiceProgress
from meshd.cli.main import _COMMANDS, main
from meshd.cli.options import DURATION, TIMESTAMP, parse_timestamp
from meshd.cli.session import default_state, find_service
from meshd.model.errors import NotFound
from meshd.model.event import Event
from meshd.spec.model.proxy_settings import OtlpSettings, ProxySettings
from meshd.store import presence
from meshd.ui.settings import ADDRESS, PageSettings
from proxy.ipc.config import LogConfig
from tests.fakes import traffic


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (1.5, "1.5 s"),
        (200.0, "3 m 20 s"),
        (7260.0, "2 h 1 m"),
    ],
)
def test_durations_are_formatted_for_people(value: float | None, text: str) -> None:
    assert output.format_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (512, "512 B"), (52_428_800, "50 MiB"), (3 << 30, "3 GiB")]
)
def test_sizes_are_formatted_for_people(value: int | None, text: str) -> None:
    assert output.format_bytes(value) == text


def test_a_plain_table_fills_empty_cells() -> None:
    lines = output.plain_table(("name", "in flight"), [["orders", ""], ["a", "1.5"]])
    assert lines == ["NAME    IN_FLIGHT", "orders  -", "a       1.5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00:00", "2026-03-01T00:00:00"),
        ("00:00:05", "2026-03-01T00:00:05"),
        ("00:00:06", "2026-02-28T00:00:06"),
        ("23:59:50", "2026-02-28T23:59:50"),
        ("10s", "2026-02-28T23:59:55"),
        ("2026-03-02", "2026-03-02T00:00:00"),
    ],
)
def test_a_time_of_day_is_the_last_one(text: str, expected: str) -> None:
    now = datetime.fromisoformat("2026-03-01T00:00:05").timestamp()
    assert parse_timestamp(text, now) == datetime.fromisoformat(expected).timestamp()


def test_timestamps_and_durations() -> None:
    at = datetime.fromtimestamp(TIMESTAMP.convert("14:30", None, None)).astimezone()
    assert (at.hour, at.minute) == (14, 30)
    assert TIMESTAMP.convert("2026-01-31T14:30:05+00:00", None, None) == 1769869805.0
    assert TIMESTAMP.convert("10m", None, None) == pytest.approx(time.time() - 600, abs=5)
    with pytest.raises(click.BadParameter, match="soon"):
        TIMESTAMP.convert("soon", None, None)
    with pytest.raises(click.BadParameter, match="duration"):
        DURATION.convert("10 bananas", None, None)


@pytest.mark.parametrize(
    ("service", "kinds", "expected"),
    [
        (None, (), True),
        ("orders", (), True),
        ("shop/orders", ("scale",), True),
        ("orders", ("scale.up",), True),
        ("orders", ("scal",), False),
        ("orders", ("replica",), False),
        ("auth", (), False),
    ],
)
def test_events_match_by_service_and_kind(
    service: str | None, kinds: tuple[str, ...], expected: bool
) -> None:
    assert matches(Event(1, 1.0, "scale.up", "shop", "orders"), service, kinds) is expected


def test_a_service_is_found_by_name_or_key() -> None:
    status = traffic.status()
    assert find_service(status, "orders").name == "orders"
    assert find_service(status, "shop/orders").name == "orders"
    with pytest.raises(NotFound, match="no service 'cart'; known services: orders, payments"):
        find_service(status, "cart")
    twice = traffic.status()
    other = ServiceStatus("bar", "orders", 1, 1, 1, 1, 1, "r1")
    both = type(twice)(
        **{f: getattr(twice, f) for f in twice.__struct_fields__}
        | {"services": (*twice.services, other)}
    )
    with pytest.raises(NotFound, match="shop/orders, bar/orders"):
        find_service(both, "orders")


def test_rows_match_their_columns() -> None:
    services = traffic.status().services
    (orders, _) = tables.service_rows(services)
    row = dict(zip(tables.SERVICE_COLUMNS, orders, strict=True))
    assert row["service"] == "orders"
    assert row["replicas"] == "1/2"
    assert row["wanted"] == "3 (1-5) by hand"
    assert (row["p50"], row["p95"], row["p99"]) == ("4 ms", "250 ms", "1.5 s")
    adopted = tuple(
        msgspec.structs.replace(each, managed=False) for each in services[0].replicas[:1]
    )
    other = msgspec.structs.replace(
        services[0], minimum=3, maximum=3, override=None, routes=("/a", "/b", "/c"),
        replicas=adopted,
    )  # fmt: skip
    (listed, quiet) = tables.list_rows([other, msgspec.structs.replace(other, routes=())])
    row = dict(zip(tables.LIST_COLUMNS, listed, strict=True))
    assert (row["wanted"], row["routes"]) == ("3", "/a /b +1")
    assert row["replicas"] == "1/2 (1 adopted)"
    assert dict(zip(tables.LIST_COLUMNS, quiet, strict=True))["routes"] == "-"
    replicas = [
        dict(zip(tables.REPLICA_COLUMNS, row, strict=True))
        for row in tables.replica_rows(services[0].replicas)
    ]
    assert replicas[1]["phase"] == "failed"
    assert replicas[1]["reason"] == "exit 1"


def service(*replicas: ReplicaStatus, target: int = 2) -> ServiceStatus:
    return ServiceStatus(
        "shop", "web", target, len(replicas), 0, 1, 5, revision="r2", replicas=replicas
    )


def replica(name: str, phase: str, revision: str = "r2", reason: str = "") -> ReplicaStatus:
    return ReplicaStatus(name, "web", revision, phase, reason=reason)


def test_progress_reports_each_change_once() -> None:
    report = ProgressReport()
    assert report.changes([service()], 0.0) == ["web    0.0 s  waiting 0/2 ready"]
    assert report.changes([service()], 0.5) == []
    probing = service(replica("a", "probing", reason="503 from /healthz"), replica("b", "ready"))
    assert report.changes([probing], 1.0) == ["web    1.0 s  probing 1/2 ready (503 from /healthz)"]
    rolling = service(replica("a", "ready"), replica("b", "ready"), replica("z", "ready", "r1"))
    assert report.changes([rolling], 2.0) == [
        "web    2.0 s  waiting 2/2 ready, 1 of the old revision"
    ]
    there = service(replica("a", "ready"), replica("b", "ready"))
    assert report.changes([there], 3.0) == ["web    3.0 s  ready 2/2 after 3.0 s"]
    assert report.changes([there], 4.0) == []


def test_progress_shows_the_stage_and_a_rollback() -> None:
    both = service(replica("a", "ready"), replica("y", "ready", "r1"), replica("z", "ready", "r1"))
    tried = msgspec.structs.replace(
        both, new_revision="r2", stage="5 % of the requests", analysis="tried on 3 of 200 requests"
    )
    text = "rolling 1/2 ready, 2 of the old revision; 5 % of the requests"
    report = ProgressReport()
    assert report.changes([tried], 1.0) == [f"web    1.0 s  {text}"]
    more = msgspec.structs.replace(tried, analysis="tried on 9 of 200 requests")
    assert report.changes([more], 2.0) == []
    assert report.describe([more], 2.0) == [
        ServiceProgress("web", f"{text} (tried on 9 of 200 requests)", False, 1, 4)
    ]
    back = msgspec.structs.replace(both, revision="r1", stage="going back")
    assert report.changes([back], 3.0) == [
        "web    3.0 s  rolling 2/2 ready, 1 of the failed revision; going back"
    ]


def test_the_supervisor_config_lists_its_children(tmp_path: Path) -> None:
    options = daemon_process.DaemonOptions(
        tmp_path, "process", ("127.0.0.1:25001",), "127.0.0.1:25002", 3
    )
    config = options.config()
    assert (config.workers, config.listen) == (3, ("127.0.0.1:25001",))
    assert [child.name for child in config.children] == ["keeper", "control"]
    assert "meshd.daemon" in config.children[1].argv
    docker = daemon_process.DaemonOptions(tmp_path, "docker", (), "127.0.0.1:25002", 1).config()
    assert [child.name for child in docker.children] == ["control"]


def test_proxy_settings_come_from_the_file_and_the_options(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(
        "services: {web: {image: i}}\n"
        "x-mesh: {trusted_proxies: 10.0.0.0/8, via: true,\n"
        "  access_log: {mode: on, path: log/a.log}}\n"
    )
    given: dict[str, Any] = dict.fromkeys([*proxy_options._LOG_FIELDS, "otlp", "otlp_sample"])
    given |= {"tls_cert": (), "tls_key": ()}
    given["trusted_proxy"] = ()
    loaded = spec_options.load((file,))
    options = daemon_process.DaemonOptions(
        tmp_path, "process", (), "127.0.0.1:0", 1, proxy=proxy_options.merge(given, loaded)
    )
    config = options.config()
    assert config.access_log == LogConfig("on", "json", str(tmp_path / "log/a.log"), 0.01)
    assert {"--trusted-proxy=10.0.0.0/8", "--via"} <= set(config.children[1].argv)
    given |= {"access_log": "sampled", "access_log_sample": 0.5, "trusted_proxy": ("::1",)}
    over = proxy_options.merge(given, loaded)
    assert (over.access_log.mode, over.access_log.sample) == ("sampled", 0.5)
    assert over.trusted_proxies == ("::1",)
    assert proxy_options.merge(dict.fromkeys(given), None) == ProxySettings()
    plain = daemon_process.DaemonOptions(tmp_path, "process", (), "127.0.0.1:0", 1).config()
    assert plain.access_log == LogConfig("off", "json", str(tmp_path / "access.log"), 0.01)
    spans = proxy_options.merge(given | {"otlp": "http://h:4318", "otlp_sample": "5%"}, None).otlp
    assert spans == OtlpSettings(endpoint="http://h:4318/v1/traces", sample=0.05)
    with pytest.raises(click.UsageError, match="--otlp: 'h' is not a valid URL"):
        proxy_options.merge(given | {"otlp": "h"}, None)
    with pytest.raises(click.UsageError, match="--trusted-proxy: 'x' is not a valid network"):
        proxy_options.merge(given | {"trusted_proxy": ("x",)}, loaded)


@pytest.mark.parametrize("option", ["--listen", "--metrics"])
def test_an_address_in_use_names_its_option(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        mine = {"--listen": "127.0.0.1:0", "--metrics": "127.0.0.1:0"} | {option: address}
        options = daemon_process.DaemonOptions(
            tmp_path, "process", (mine["--listen"],), mine["--metrics"], 1
        )
        with pytest.raises(
            daemon_process.DaemonStartError, match=f"{address}: address already in use.*{option}"
        ):
            daemon_process.check_addresses(options)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_invalid_address_is_refused(tmp_path: Path, address: str) -> None:
    options = daemon_process.DaemonOptions(tmp_path, "process", (address,), "127.0.0.1:0", 1)
    with pytest.raises(daemon_process.DaemonStartError, match="cannot listen on"):
        daemon_process.check_addresses(options)


def test_only_the_owner_can_read_the_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    daemon_process.prepare_state(state)
    assert state.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(daemon_process.DaemonStartError, match="--state"):
        daemon_process.prepare_state(tmp_path / "file" / "state")
    with pytest.raises(daemon_process.DaemonStartError, match="too long"):
        daemon_process.prepare_state(tmp_path / ("x" * 120))


def test_the_state_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESHD_STATE", str(tmp_path))
    assert default_state() == tmp_path
    monkeypatch.delenv("MESHD_STATE")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_state() == Path("/home/ann/.local/state/meshd")


def test_no_daemon_runs_if_the_pid_is_not_a_supervisor(tmp_path: Path) -> None:
    assert daemon_process.running_pid(tmp_path) is None
    daemon_process.pid_file(tmp_path).write_text("1\n")
    assert daemon_process.running_pid(tmp_path) is None


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_loads_and_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: main" in result.output


def test_errors_in_a_spec_are_listed_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("name: x\nservices:\n  web:\n    image: i\n    comand: x\n    replicas: y\n")
    state = tmp_path / "state"
    result = CliRunner().invoke(main, ["up", "-f", str(file), "--state", str(state)])
    assert result.exit_code == 2
    assert f"{file}:5" in result.stderr
    assert "comand" in result.stderr
    assert not state.exists()


def test_a_missing_file_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(main, ["diff", "-f", str(tmp_path / "none.yml")])
    assert (result.exit_code, "no such file" in result.stderr) == (2, True)
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(main, ["up"])
    assert (result.exit_code, "no -f FILE" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [["ps"], ["scale", "web", "3"], ["events", "-f"], ["down"], ["top"], ["drain", "x"]],
)
def test_without_a_daemon_the_exit_code_is_3(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--state", str(tmp_path)])
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "meshd up" in result.stderr


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(traffic.status())
    assert json.loads(capsys.readouterr().out)["services"][0]["name"] == "orders"


def test_a_current_directory_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    file = tmp_path / "compose.yml"
    file.write_text("services: {web: {command: run}}")
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = CliRunner().invoke(main, ["diff", "-f", str(file), "--state", str(tmp_path)])
    assert (done.exit_code, "the current directory was deleted" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("state", "warning"),
    [
        ("ok", None),
        ("does not answer", "warning: the docker runtime does not answer; meshd changes nothing "
                            "until it does"),
    ],
)  # fmt: skip
def test_a_runtime_that_does_not_answer_is_a_warning(state: str, warning: str | None) -> None:
    status = Status("0.1.0", "docker", state, (1, 1), (), ())
    assert tables.runtime_warning(status) == warning


def test_the_page_has_its_arguments(tmp_path: Path) -> None:
    def arguments(ui: PageSettings | None) -> list[str]:
        options = daemon_process.DaemonOptions(tmp_path, "docker", (), "127.0.0.1:0", 1, ui=ui)
        return [each for each in options.config().children[0].argv if each.startswith("--ui")]

    assert arguments(None) == []
    assert arguments(read_page_settings(None, ["", ""], ())) == [f"--ui={ADDRESS}"]
    given = read_page_settings("0.0.0.0:443", ["/c.pem", "/k.pem"], ("mesh.test",))
    assert arguments(given) == [
        "--ui=0.0.0.0:443",
        "--ui-cert=/c.pem",
        "--ui-key=/k.pem",
        "--ui-host=mesh.test",
        "--ui-strict",
    ]
    with pytest.raises(click.UsageError, match="tokens must not be sent"):
        read_page_settings("0.0.0.0:443", ["", ""], ())
    running = daemon_process.DaemonOptions(tmp_path, "docker", (), "127.0.0.1:0", 1, ui=given)
    assert daemon_process.has_ui_settings(running), "not known"
    (tmp_path / presence.CONFIG_FILE).write_bytes(msgspec.json.encode(running.config()))
    assert daemon_process.has_ui_settings(running)
    assert not daemon_process.has_ui_settings(dataclasses.replace(running, ui=None))
