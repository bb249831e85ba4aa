"""What a control process that stands by answers."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshd.api.client import Client
from meshd.api.port import Control
from meshd.api.server import serve
from meshd.cli.foreground import ForegroundRun
from meshd.cli.main import main
from meshd.cli.session import find_service
from meshd.cli.stop_signals import StopSignals
from meshd.daemon.standby import StandbyControl
from meshd.model.errors import Rejected
from meshd.spec.model import Project, Service
from tests.fakes.control import FakeControl
from tests.support.waiting import elapse

SHOP = Project(name="shop", services=(Service(name="web", image="a"),))


async def test_the_status_says_who_leads_and_the_rest_is_refused(tmp_path: Path) -> None:
    ended = asyncio.Event()
    leaders, problems = ["", "m1"], [""]
    control = StandbyControl("prod", lambda: leaders[0], lambda: problems[0], ended.set)
    socket = tmp_path / "admin.sock"
    async with serve(control, socket, "127.0.0.1:0"), Client(socket) as client:  # type: ignore[arg-type]
        first = await client.status()
        assert first.standby == "standing by: it is not known yet who leads lease prod"
        del leaders[0]
        assert (await client.status()).standby == "standing by: m1 leads lease prod"
        for refused in (client.deploy(SHOP), client.drain("web-1"), client.nodes()):
            with pytest.raises(Rejected, match="m1 leads lease prod; ask the meshd that leads"):
                await refused
        with pytest.raises(Rejected, match="m1 leads lease prod; ask the meshd that leads"):
            find_service(await client.status(), "web")
        shown = await asyncio.to_thread(CliRunner().invoke, main, ["ps", "--state", str(tmp_path)])
        assert "standing by: m1 leads lease prod" in shown.output
        assert "stands by" in await client.metrics()
        problems[0] = "upgrade meshd on this host"
        found = (await client.status()).standby
        assert found == (
            "standing by: this meshd cannot take over lease prod: upgrade meshd on this host"
        )
        await client.shutdown(False)
        await asyncio.wait_for(ended.wait(), 10)
    with pytest.raises(AttributeError):
        _ = control._something


async def test_up_waits_for_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("meshd.cli.foreground.DECISION_SECONDS", 0.0)
    monkeypatch.setattr("meshd.cli.foreground.STANDBY_POLL", 0.01)
    socket = tmp_path / "admin.sock"
    standby = StandbyControl("prod", lambda: "m1", lambda: "", lambda: None)
    async with Client(socket) as client:
        run = ForegroundRun(StopSignals(), client, None, None, 10.0, True)
        async with serve(standby, socket, "127.0.0.1:0"):  # type: ignore[arg-type]
            assert await run.run(detach=True) == 0
            assert "m1 leads lease prod; this meshd waits for the lease" in capsys.readouterr().err
            waiting = asyncio.ensure_future(run._stand_by(detach=False))
            await elapse(0.1, "it waits")
            assert not waiting.done()
        leading: Control = FakeControl()
        async with serve(leading, socket, "127.0.0.1:0"):
            assert await asyncio.wait_for(waiting, 10) is False
