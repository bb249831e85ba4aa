"""A served API with a fake behind it, and the `meshd` command that talks to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshd.api.server import serve
from meshd.cli.main import main
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.commands import Meshd


@pytest.fixture
def control() -> FakeControl:
    """What the API serves, with a few services."""
    fake = FakeControl()
    fake.services = traffic.status().services
    return fake


@pytest.fixture
async def meshd(
    control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Meshd]:
    """Run `meshd` with the state directory of that API."""
    monkeypatch.setenv("MESHD_STATE", str(tmp_path))

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0"):
        yield run
