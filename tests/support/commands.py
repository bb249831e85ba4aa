"""The `meshd` command in tests, called in this process or in another one."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from click.testing import Result

Meshd = Callable[..., Awaitable[Result]]
"""Runs a command with these arguments."""


async def run_meshd(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command in a separate process; return its exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshd", *words, env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
