"""Backups of volumes whose services have backup hooks: which services stop, and what is refused."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshd.control.quiescer import Quiescer
from meshd.control.volumes import VolumeManager
from meshd.model.desired import DesiredService
from meshd.model.errors import Rejected
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.request import HoldServices, ReleaseServices, RunCommand
from meshd.model.runtime import CommandResult
from meshd.model.volume import RuntimeVolume
from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import Runtime
from meshd.spec.model import BackupHooks, Mount, Project, Service
from meshd.store.events import EventLog
from meshd.store.quiesced import QuiescedLog
from meshd.store.store import Store

DATA = Mount(type="volume", source="data", target="/d")
DB = Service(name="db", image="i", volumes=(DATA,))
REPORTS = Service(name="reports", image="i", volumes=(DATA,))
HOOKS = BackupHooks(quiesce=("lock",), resume=("unlock",))


class Engine:
    """Runtime and reconciler of the project `shop`: a held service has no replica at once. `log` is
    what happens, in order."""

    def __init__(self) -> None:
        self.names = ["db-1", "reports-1"]
        self.held: set[str] = set()
        self.log: list[str] = []

    async def volumes(self) -> Sequence[RuntimeVolume]:
        running = tuple(n for n in self.names if f"shop/{n.partition('-')[0]}" not in self.held)
        return [RuntimeVolume("shop_data", "shop", containers=running, running=running)]

    async def read_volume(self, name: str) -> AsyncIterator[bytes]:
        self.log.append(f"read {name}")
        yield b"one"
        yield b"two"

    def view(self) -> Any:
        services = tuple(DesiredService("shop", spec, "r", 1) for spec in (DB, REPORTS))
        replicas = tuple(
            Replica(name, "shop", name.partition("-")[0], "r", Phase.READY) for name in self.names
        )
        return SimpleNamespace(
            desired=SimpleNamespace(services=services),
            observed=SimpleNamespace(replicas=replicas),
            services={each.key: each for each in services},
        )

    def request(self, request: object) -> Any:
        match request:
            case HoldServices():
                self.held.update(request.keys)
                self.log += [f"hold {key}" for key in request.keys]
            case ReleaseServices():
                self.held.difference_update(request.keys)
                self.log += [f"release {key}" for key in request.keys]
            case RunCommand():
                self.log.append(f"{request.hook.command[0]} {request.replica}")
                return self.end()
        return None

    async def end(self) -> CommandResult:
        return CommandResult(0, ())

    async def ready(self) -> None: ...


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def manager(engine: Engine, tmp_path: Path) -> VolumeManager:
    store = Store(tmp_path)
    store.open()
    project = Project(name="shop", services=(DB, REPORTS), backups={"db": HOOKS})
    store.deploy(project, {"db": "r", "reports": "r"}, "me", "", 1.0)
    events = EventLog(store)
    quiescer = Quiescer(engine, QuiescedLog(store), events, lambda: 1.0)
    return VolumeManager(
        cast("Runtime", engine), store, cast("Reconciler", engine), quiescer, events, lambda: 1.0
    )


async def read(manager: VolumeManager, live: bool = False) -> bytes:
    return b"".join([chunk async for chunk in manager.read("data", live, "me")])


async def test_a_service_with_hooks_keeps_running(manager: VolumeManager, engine: Engine) -> None:
    assert await read(manager) == b"onetwo"
    assert engine.log == [
        "hold shop/reports",
        "lock db-1",
        "read shop_data",
        "unlock db-1",
        "release shop/reports",
    ]


async def test_live_runs_no_hooks(manager: VolumeManager, engine: Engine) -> None:
    assert await read(manager, live=True) == b"onetwo"
    assert engine.log == ["read shop_data"]


async def test_a_reader_that_goes_away_resumes(manager: VolumeManager, engine: Engine) -> None:
    chunks = cast("Any", manager.read("data", False, "me"))
    assert await anext(chunks) == b"one"
    with pytest.raises(Rejected, match="is being backed up"):
        await read(manager)
    await chunks.aclose()
    assert engine.log[-2:] == ["unlock db-1", "release shop/reports"]


async def test_a_replica_that_starts_meanwhile_fails_the_backup(
    manager: VolumeManager, engine: Engine
) -> None:
    chunks = cast("Any", manager.read("data", False, "me"))
    assert await anext(chunks) == b"one"
    engine.names.append("db-2")
    assert await anext(chunks) == b"two"
    with pytest.raises(Rejected, match="db-2 started during the backup of volume shop_data"):
        await anext(chunks)
    assert engine.log[-2:] == ["unlock db-1", "release shop/reports"]


async def test_a_restore_stops_all_services(manager: VolumeManager, engine: Engine) -> None:
    async with manager._stopped("shop_data", ("shop/db", "shop/reports"), removed=True):
        assert engine.log == ["hold shop/db", "hold shop/reports"]
