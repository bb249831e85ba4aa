"""Invalid input, narrow terminals and full disks: what the commands print and their exit codes."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console, Group
from rich.table import Table

from meshd.cli import daemon_process, output, proxy_options, session, spec_options
from meshd.cli.main import main
from meshd.cli.options import TIMESTAMP
from meshd.spec.errors import SpecError
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.spec.source import yaml_tree


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["scale", "web", "2", "--for", "0"], 2, "'0' is out of range; expected more than 0"),
        (["scale", "web", "2", "--for", "99999999h"], 2, "at most 365d"),
        (["scale", "web", "auto", "--for", "5m"], 2, "--for needs a number of replicas"),
        (
            ["explain", "web", "--at", "25:99"],
            2,
            "'25:99' is not a valid time; expected e.g. 14:30",
        ),
        (["explain", "web", "--at", "99999999h"], 2, "is not a valid time"),
        (["explain", "web", "--at", "0001-01-01T00:00:00"], 2, "is not a valid time"),
        (["run", "web", "-e", "A=1", "--", "true"], 2, "options of meshd run come before SERVICE"),
        (["pss"], 2, "No such command 'pss'. Did you mean 'ps'?"),
        (["deplyo"], 2, "Did you mean 'deploy'?"),
        (["frobnicate"], 2, "No such command 'frobnicate'."),
    ],
)
def test_invalid_arguments_are_refused_with_what_is_expected(
    arguments: list[str], code: int, text: str, tmp_path: Path
) -> None:
    ran = CliRunner().invoke(main, arguments, env={"MESHD_STATE": str(tmp_path)})
    assert (ran.exit_code, text in " ".join(ran.output.split())) == (code, True), ran.output


@pytest.mark.parametrize("command", [["deploy"], ["diff"], ["up", "--detach"]])
def test_a_project_too_large_for_the_api_is_refused_before_it_is_sent(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_options, "MAX_BODY_BYTES", 8192)  # YAML of the true size takes seconds
    file = tmp_path / "big.yaml"
    text = "x" * 8192
    file.write_text(
        "name: shop\nservices:\n  small: {image: a}\n"
        f"  web: {{image: a, environment: {{A: {text}}}}}\n"
    )
    ran = CliRunner().invoke(main, [*command, "-f", str(file)], env={"MESHD_STATE": str(tmp_path)})
    assert ran.exit_code == 2
    assert f"error: {file}: the project shop is too large for the daemon: " in ran.output
    assert "in the service web; expected less than 8 KiB: move long texts to the im" in ran.output


@pytest.mark.parametrize(
    ("listeners", "said"),
    [
        (
            "'unix:/run/a.sock': {mode: '0660'}",
            "x-mesh.listeners: unix:/run/a.sock is not an address of --listen; add --listen unix:",
        ),
        ("'127.0.0.1:8080': {mode: '0660'}", "has no mode; only Unix sockets (unix:PATH) have one"),
        ("'127.0.0.1:8080': {path: strict}", "unknown key; did you mean paths?"),
        ("'127.0.0.1:8080': {paths: loose}", "'loose' is not valid; expected"),
    ],
)
def test_settings_of_addresses_that_make_no_sense(
    listeners: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(f"services: {{web: {{image: a}}}}\nx-mesh: {{listeners: {{{listeners}}}}}\n")
    command = ["up", "--detach", "-f", str(file)]
    ran = CliRunner().invoke(main, command, env={"MESHD_STATE": str(tmp_path / "state")})
    assert ran.exit_code == 2
    assert said in " ".join(ran.output.split()), ran.output


def test_a_timestamp_must_be_after_1970() -> None:
    assert TIMESTAMP.convert("1970-01-02T00:00:00+00:00", None, None) == 86400.0
    with pytest.raises(click.BadParameter, match="is not a valid time"):
        TIMESTAMP.convert("1969-12-31T00:00:00+00:00", None, None)


ROWS = (["web", "ok", "answers " * 20], ["payments", "ok", ""])


@pytest.mark.parametrize(("width", "fits"), [(46, True), (45, False), (200, True), (1, False)])
def test_a_table_is_drawn_if_all_but_its_last_column_fit(width: int, fits: bool) -> None:
    columns = ("service", "state", "last")  # 8 + 5 + 24 and three gaps of three
    assert output.fits(columns, ROWS, width) is fits
    assert isinstance(output.live_table(columns, ROWS, width), Table) is fits


@pytest.mark.parametrize("width", [46, 60, 100, 300])
def test_a_drawn_table_folds_only_its_last_column(width: int) -> None:
    screen = Console(width=width, color_system=None)
    with screen.capture() as drawn:
        screen.print(output.drawn_table(("service", "state", "last"), ROWS))
    lines = [line.split() for line in drawn.get().splitlines()]
    assert ["payments", "ok"] in lines
    assert sum(line.count("answers") for line in lines) == 20


def test_a_live_table_on_a_narrow_terminal_cuts_its_lines() -> None:
    screen = Console(width=20, color_system=None)
    with screen.capture() as drawn:
        screen.print(Group(output.live_table(("service", "state", "last"), ROWS, 20)))
    assert drawn.get().splitlines() == [
        "SERVICE   STATE  LA…",
        "web       ok     an…",
        "payments  ok     -",
    ]


def test_a_full_disk_prints_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    moved: list[Any] = []
    monkeypatch.setattr("os.dup2", lambda *both: moved.append(both))

    @session.run_async
    async def command() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == output.FAILED
    assert len(moved) == 1
    assert capfd.readouterr().err == "meshd: [Errno 28] No space left on device\n"


def test_a_state_directory_that_cannot_be_created_is_named() -> None:
    with pytest.raises(
        daemon_process.DaemonStartError, match="/proc/nope cannot be used: No such file"
    ):
        daemon_process.prepare_state(Path("/proc/nope"))


def test_a_different_listen_address_than_the_daemon_s_gets_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = daemon_process.DaemonOptions(
        tmp_path, "process", (":8080",), ":9900", 1, 0, True, ProxySettings(), True
    )
    proxy_options.warn_if_different(options, (":8081",))
    assert capsys.readouterr().err == ""  # no stored configuration to compare with
    daemon_process._config_file(tmp_path).write_bytes(msgspec.json.encode(options.config()))
    proxy_options.warn_if_different(options, (":8080",))
    proxy_options.warn_if_different(options)
    assert capsys.readouterr().err == ""
    proxy_options.warn_if_different(options, (":8081",))
    assert "listens on :8080, not on :8081" in capsys.readouterr().err


def test_an_empty_file_names_the_expected_content() -> None:
    with pytest.raises(SpecError, match="expected services"):
        yaml_tree.parse_yaml("", "compose.yml")
    with pytest.raises(SpecError, match="expected settings"):
        yaml_tree.parse_yaml("# nothing", "proxy.yml", "settings")


def test_a_binary_trace_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_bytes(b"\xff\xfe\x00bin")
    ran = CliRunner().invoke(main, ["simulate", "--trace", str(trace)])
    assert ran.exit_code == output.USAGE
    assert "trace.csv: a trace needs at least two rows" in " ".join(ran.output.split())


@pytest.mark.parametrize("count", ["nan", "inf", "many"])
def test_an_invalid_count_in_a_trace_is_named_with_its_line(tmp_path: Path, count: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(f"t_seconds,count\n0,1\n60,{count}\n")
    ran = CliRunner().invoke(main, ["simulate", "--trace", str(trace)])
    assert ran.exit_code == output.USAGE
    assert "trace.csv:3: expected `t_seconds,count`" in " ".join(ran.output.split())


def test_a_setting_without_a_value_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_seconds,count\n0,1\n60,1\n")
    ran = CliRunner().invoke(main, ["simulate", "--trace", str(trace), "--set", "p95"])
    assert (ran.exit_code, "--set p95: expected KEY=VALUE" in ran.output) == (output.USAGE, True)


def test_only_one_up_at_a_time_starts_a_daemon(tmp_path: Path) -> None:
    steps: list[str] = []

    async def up(name: str, first: asyncio.Event, go: asyncio.Event) -> None:
        async with daemon_process.start_lock(tmp_path, 60.0):
            steps.append(f"{name} in")
            first.set()
            await go.wait()
            steps.append(f"{name} out")

    async def both() -> None:
        first, go = asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(up("one", first, go))
        await first.wait()
        two = asyncio.create_task(up("two", first, go))
        with pytest.raises(daemon_process.DaemonStartError, match="still starting a daemon"):
            async with daemon_process.start_lock(tmp_path, 0.0):
                pass
        go.set()
        await asyncio.gather(one, two)

    asyncio.run(both())
    assert steps == ["one in", "one out", "two in", "two out"]
    assert (tmp_path / "up.lock").stat().st_mode & 0o777 == 0o600


def test_a_missing_directory_for_the_lock_is_named(tmp_path: Path) -> None:
    async def enter() -> None:
        async with daemon_process.start_lock(tmp_path / "gone"):
            pass

    with pytest.raises(daemon_process.DaemonStartError, match="gone cannot be used: No such file"):
        asyncio.run(enter())
