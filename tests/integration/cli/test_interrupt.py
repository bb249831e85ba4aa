"""Ctrl-C while the command line still loads its modules: no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import meshd
from tests.conftest import COVERAGE_VARIABLE
from tests.support.waiting import elapse_blocking

OURS = str(Path(meshd.__file__).parent)


@pytest.mark.parametrize("after", [0.15, 0.25, 0.35, 0.5])
def test_no_traceback_while_modules_load(after: float, tmp_path: Path) -> None:
    # Coverage would load its own modules first, and so much longer that nothing of ours runs.
    env = {key: value for key, value in os.environ.items() if key != COVERAGE_VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-m", "meshd", "events", "-f", "--state", str(tmp_path)],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    elapse_blocking(after, "part of the time in which modules load")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # On a busy machine Python may not have come further than its own start.
    assert OURS not in err, err
    assert process.returncode in (-signal.SIGINT, 1, 3, 130)
