"""The commands around a backup: `resume` runs in any case, also in the next control process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from meshd.control import quiescer as module
from meshd.control.quiescer import HookTarget, Quiescer
from meshd.model.errors import Rejected
from meshd.model.request import RunCommand
from meshd.model.runtime import CommandResult
from meshd.runtime.base import ReplicaNotFound, StartFailed
from meshd.spec.model import BackupHooks
from meshd.store.events import EventLog
from meshd.store.quiesced import QuiescedLog
from meshd.store.store import Store
from tests.support.waiting import wait_until

HOOKS = BackupHooks(quiesce=("lock",), resume=("unlock",), user="db", timeout=7.0)


class Commands:
    """Runs commands. `failing` has those that exit with code 3, `gone` the replicas that ended;
    `hold` blocks each command while it is clear."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.failing: set[tuple[str, str]] = set()
        self.gone: set[str] = set()
        self.hanging: set[str] = set()
        self.hold = asyncio.Event()
        self.hold.set()

    async def request(self, request: RunCommand) -> CommandResult:
        assert (request.hook.user, request.seconds) == ("db", 7.0)
        command = (request.replica, request.hook.command[0])
        if request.replica in self.gone:
            raise ReplicaNotFound(f"container {request.replica} does not run")
        self.ran.append(command)
        await self.hold.wait()
        if command[1] in self.hanging:
            raise StartFailed(f"{command[1]!r} did not end within 7 s")
        lines = tuple(f"line {number}" for number in range(9))
        return CommandResult(3 if command in self.failing else 0, lines)

    async def ready(self) -> None: ...


class Scene:
    """One state directory, and lives of the control process on it."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        self.log = QuiescedLog(self.store)
        self.commands = Commands()
        self.now = 1000.0
        self.quiescer = self.restart()

    def restart(self) -> Quiescer:
        self.quiescer = Quiescer(self.commands, self.log, self.events, lambda: self.now)
        return self.quiescer

    def recorded(self) -> list[tuple[str, str]]:
        return [(event.kind, event.text) for event in self.events.since(0, 99)]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(module, "RETRY", 0.01)
    made = Scene(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
async def running(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.restart().run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def targets(*names: str, hooks: BackupHooks = HOOKS) -> list[HookTarget]:
    return [HookTarget(name, "shop", "db", hooks) for name in names]


async def test_a_replica_is_quiesced_for_the_block(scene: Scene) -> None:
    async with scene.quiescer.quiesced("v", targets("db-1", "db-2")):
        assert scene.commands.ran == [("db-1", "lock"), ("db-2", "lock")]
        assert [each.replica for each in scene.log.read()] == ["db-1", "db-2"]
    assert scene.commands.ran[2:] == [("db-2", "unlock"), ("db-1", "unlock")]
    assert scene.log.read() == []
    assert scene.recorded() == []


async def test_without_resume_nothing_is_stored(scene: Scene) -> None:
    hooks = HOOKS.model_copy(update={"resume": ()})
    async with scene.quiescer.quiesced("v", targets("db-1", hooks=hooks)):
        assert scene.log.read() == []
    assert scene.commands.ran == [("db-1", "lock")]


@pytest.mark.parametrize("how", ["exits", "hangs", "gone"])
async def test_if_quiesce_fails_those_before_it_are_resumed(scene: Scene, how: str) -> None:
    expected = {
        "exits": "'lock' exited with code 3: line 4; line 5; line 6; line 7; line 8",
        "hangs": "'lock' did not end within 7 s",
        "gone": "container db-2 does not run",
    }[how]
    if how == "exits":
        scene.commands.failing.add(("db-2", "lock"))
    elif how == "hangs":
        scene.commands.hanging.add("lock")
    else:
        scene.commands.gone.add("db-2")
    names = ("db-2",) if how == "hangs" else ("db-1", "db-2", "db-3")
    with pytest.raises(Rejected, match=f"volume v was not backed up: quiesce in db-2: {expected}"):
        async with scene.quiescer.quiesced("v", targets(*names)):
            raise AssertionError("the copy must not begin")
    resumed = [name for name, command in scene.commands.ran if command == "unlock"]
    assert resumed == {"exits": ["db-2", "db-1"], "hangs": ["db-2"], "gone": ["db-1"]}[how]
    assert "db-3" not in dict(scene.commands.ran)
    assert [each.replica for each in scene.log.read()] == (["db-2"] if how == "hangs" else [])


async def test_resume_is_repeated_while_a_late_quiesce_may_still_run(
    scene: Scene, running: None
) -> None:
    scene.commands.hanging.add("lock")
    with pytest.raises(Rejected):
        async with scene.quiescer.quiesced("v", targets("db-1")):
            raise AssertionError("the copy must not begin")
    await wait_until(lambda: scene.commands.ran.count(("db-1", "unlock")) > 3)
    assert scene.log.read()[0].quiesces_until == 1007.0
    assert scene.recorded() == []
    scene.now = 1007.0
    await wait_until(lambda: not scene.log.read())
    assert scene.recorded() == [
        ("volume.resumed", "db-1 was resumed after a backup of volume v"),
    ]


async def test_the_next_control_process_resumes_after_a_quiesce_that_it_interrupted(
    scene: Scene,
) -> None:
    """The first one is killed while `quiesce` runs, which continues in the container."""
    scene.commands.hold.clear()
    backup = asyncio.create_task(
        scene.quiescer.quiesced("v", targets("db-1")).__aenter__()  # never ends
    )
    await wait_until(lambda: scene.commands.ran)
    first, scene.commands.hold = scene.commands.hold, asyncio.Event()
    scene.commands.hold.set()
    task = asyncio.create_task(scene.restart().run())
    await wait_until(lambda: scene.commands.ran.count(("db-1", "unlock")) > 2)
    scene.now = 1008.0
    await wait_until(lambda: not scene.log.read())
    task.cancel()
    assert not first.is_set()
    backup.cancel()
    with suppress(asyncio.CancelledError):
        await backup


async def test_a_resume_that_fails_is_shown_and_repeated(scene: Scene, running: None) -> None:
    scene.commands.failing.add(("db-1", "unlock"))
    async with scene.quiescer.quiesced("v", targets("db-1")):
        pass
    text = "db-1: resume: 'unlock' exited with code 3: line 4; line 5; line 6; line 7; line 8"
    assert scene.quiescer.problems("v") == (text,)
    assert scene.quiescer.problems("w") == ()
    await wait_until(lambda: scene.commands.ran.count(("db-1", "unlock")) > 2)
    scene.commands.failing.clear()
    await wait_until(lambda: not scene.log.read())
    assert scene.quiescer.problems("v") == ()
    assert [kind for kind, _ in scene.recorded()] == ["volume.resume-failed", "volume.resumed"]
    assert (
        "db-1 stays quiesced after a backup of volume v: resume: 'unlock'" in scene.recorded()[0][1]
    )


async def test_a_replica_that_is_gone_needs_no_resume(scene: Scene) -> None:
    async with scene.quiescer.quiesced("v", targets("db-1")):
        scene.commands.gone.add("db-1")
    assert scene.log.read() == []
    assert scene.recorded() == []


async def test_a_backup_that_is_cancelled_resumes_to_its_end(scene: Scene) -> None:
    began = asyncio.Event()

    async def backup() -> None:
        async with scene.quiescer.quiesced("v", targets("db-1")):
            scene.commands.hold.clear()
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(backup())
    await began.wait()
    task.cancel()
    await wait_until(lambda: ("db-1", "unlock") in scene.commands.ran)
    task.cancel()  # again, while it resumes
    scene.commands.hold.set()
    with suppress(asyncio.CancelledError):
        await task
    assert scene.log.read() == []


async def test_the_next_control_process_resumes(scene: Scene) -> None:
    """The first one is killed: nothing of it runs any more, and its list is stored."""
    block = scene.quiescer.quiesced("v", targets("db-1"))
    await block.__aenter__()
    task = asyncio.create_task(scene.restart().run())
    await wait_until(lambda: not scene.log.read())
    task.cancel()
    assert scene.commands.ran == [("db-1", "lock"), ("db-1", "unlock")]
    assert scene.recorded() == [("volume.resumed", "db-1 was resumed after a backup of volume v")]
    await block.__aexit__(None, None, None)


async def test_a_replica_in_a_backup_is_not_resumed_early(scene: Scene, running: None) -> None:
    reads = 0
    real = scene.log.read

    def count() -> object:
        nonlocal reads
        reads += 1
        return real()

    scene.log.read = count  # type: ignore[method-assign, assignment]
    async with scene.quiescer.quiesced("v", targets("db-1")):
        before = reads
        await wait_until(lambda: reads > before + 2)
        assert scene.commands.ran == [("db-1", "lock")]
    assert scene.commands.ran == [("db-1", "lock"), ("db-1", "unlock")]
