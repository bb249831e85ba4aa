"""Decisions of `meshd up` that need no daemon."""

import shlex
from pathlib import Path

import click
import msgspec
import pytest

from meshd.cli import daemon_process, proxy_options
from meshd.cli.commands.jobs import job_row
from meshd.cli.commands.up import longest_start
from meshd.cli.daemon_process import DaemonOptions
from meshd.cli.main import main
from meshd.model.job import Job, JobState
from meshd.spec.model import Project
from tests.support.paths import ROOT


def test_the_longest_start_of_a_spec() -> None:
    check = {"test": ["CMD", "true"], "start_period": 240}
    services = [
        {"name": "web", "image": "a"},
        {"name": "java", "image": "a", "healthcheck": check},
    ]
    assert longest_start(Project.model_validate({"name": "shop", "services": services})) == 240
    assert longest_start(Project.model_validate({"name": "shop", "services": services[:1]})) == 0


def test_a_different_address_of_metrics_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = DaemonOptions(tmp_path, "process", ("127.0.0.1:8080",), "127.0.0.1:9900", workers=1)
    (tmp_path / "supervisor.json").write_bytes(msgspec.json.encode(runs.config()))
    assert daemon_process.metrics_address(tmp_path) == "127.0.0.1:9900"
    proxy_options.warn_if_different(runs, metrics="127.0.0.1:9900")
    proxy_options.warn_if_different(runs)
    assert capsys.readouterr().err == ""
    proxy_options.warn_if_different(runs, metrics="127.0.0.1:9901")
    assert capsys.readouterr().err.startswith(
        "warning: the daemon serves metrics at 127.0.0.1:9900, not at 127.0.0.1:9901; "
    )


def test_the_commands_of_the_systemd_unit_exist() -> None:
    unit = (ROOT / "deploy" / "systemd" / "meshd.service").read_text()
    commands = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("Exec")]
    assert len(commands) == 3
    for words in (shlex.split(each) for each in commands):
        program, name, *arguments = words
        assert program == "/usr/local/bin/meshd"
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, arguments)


def test_a_job_over_which_the_clock_was_set_back_has_no_negative_duration() -> None:
    job = Job("j", "shop", "web", "r1", (), "by hand", 100.0, state=JobState.SUCCEEDED)
    job = msgspec.structs.replace(job, started=100.0, ended=40.0)
    assert not any(cell.startswith("-") and len(cell) > 1 for cell in job_row(job))
