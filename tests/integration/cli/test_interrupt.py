"""Ctrl-C while the command line still loads its modules: no traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import elapse_blocking


@pytest.mark.parametrize("after", [0.15, 0.25, 0.35, 0.5])
def test_no_traceback_while_modules_load(after: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd", "events", "-f", "--state", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    elapse_blocking(after, "part of the time in which modules load")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (-signal.SIGINT, 1, 3, 130)
