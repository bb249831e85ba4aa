"""What a test leaves open fails the file of that test, not a later one."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

LEAVES = """
import asyncio

async def test_a_connection_that_ends_late():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.close()
    server.close()

async def test_good():
    pass
"""
PURE = """
import socket

def test_pure():
    pass
"""


def test_a_file_that_leaves_something_open_fails(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(LEAVES)
    (tmp_path / "test_b.py").write_text(PURE)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path]
    command += ["-p", "tests.support.left_open", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "the tests of test_a.py left something open" in done.stdout, done.stdout + done.stderr
    assert "ResourceWarning: unclosed transport" in done.stdout
    assert "ERROR at teardown of test_good" in done.stdout
    assert "3 passed, 1 error" in done.stdout
