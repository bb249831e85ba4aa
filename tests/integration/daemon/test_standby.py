"""What a control process that stands by answers."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from meshd.api.client import Client
from meshd.api.dto import DeployResult, ProjectStatus, Status
from meshd.api.port import Control
from meshd.api.server import serve
from meshd.cli.foreground import ForegroundRun
from meshd.cli.main import main
from meshd.cli.output import FAILED
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


class Ending:
    """The process of a daemon that ends as its API was asked to."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control

    async def has_ended(self, seconds: float) -> bool:
        """See `DaemonProcess.has_ended`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._control.ended.wait(), seconds)
        return self._control.ended.is_set()


class Leading(FakeControl):
    """A daemon that leads, with a project that the leader before has deployed."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self.stored_project = ProjectStatus(project, "up", 1, 1, 1)

    def status(self) -> Status:
        """See `Control.status`."""
        return msgspec.structs.replace(super().status(), projects=(self.stored_project,))

    def called(self, what: str) -> list[object]:
        """Return the first argument of each call of this kind."""
        return [call[1] for call in self.calls if call[0] == what]


@pytest.mark.parametrize(("deployed", "sent"), [("shop", []), ("other", ["shop"])])
async def test_up_leaves_a_project_as_the_leader_before_deployed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: str, sent: list[str]
) -> None:
    monkeypatch.setattr("meshd.cli.foreground.STANDBY_POLL", 0.01)
    socket = tmp_path / "admin.sock"
    asked = asyncio.Event()

    def leader() -> str:
        asked.set()
        return "m1"

    standby = StandbyControl("prod", leader, lambda: "", lambda: None)
    leading = Leading(deployed)
    async with Client(socket) as client:
        run = ForegroundRun(StopSignals(), client, None, SHOP, 10.0, True, lease="prod")
        async with serve(standby, socket, "127.0.0.1:0"):  # type: ignore[arg-type]
            running = asyncio.ensure_future(run.run(detach=True))
            await asyncio.wait_for(asked.wait(), 10)
        async with serve(leading, socket, "127.0.0.1:0"):
            await asyncio.wait_for(running, 20)
    assert leading.called("deploy") == sent


@pytest.mark.parametrize(("lease", "stops"), [("prod", False), ("", True)])
async def test_the_end_of_up_leaves_services_that_it_shares(
    tmp_path: Path, lease: str, stops: bool
) -> None:
    socket = tmp_path / "admin.sock"
    leading = Leading("shop")
    async with Client(socket) as client, serve(leading, socket, "127.0.0.1:0"):
        run = ForegroundRun(StopSignals(), client, Ending(leading), None, 10.0, True, lease=lease)  # type: ignore[arg-type]
        await run._end()
    assert leading.called("shutdown") == [stops]


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_failed_deployment_leaves_services_that_it_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_new: bool
) -> None:
    socket = tmp_path / "admin.sock"
    leading = Leading("other")
    leading.result = DeployResult("shop", done=True, ok=False, detail="web: exited with code 1")
    if not is_new:
        leading.projects["shop"] = SHOP
    async with Client(socket) as client, serve(leading, socket, "127.0.0.1:0"):
        run = ForegroundRun(StopSignals(), client, Ending(leading), SHOP, 10.0, True, lease="prod")  # type: ignore[arg-type]
        assert await run.run(detach=False) == FAILED
    assert leading.called("down") == (["shop"] if is_new else [])
    assert leading.called("shutdown") == [False]
    assert ("taking shop down again" in capsys.readouterr().err) == is_new


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
