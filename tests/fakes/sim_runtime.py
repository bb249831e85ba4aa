"""A runtime in virtual time: containers that start, answer, crash, hang and get killed.

The environment of a service says how its replicas behave. `BEHAVE` is `good` (default), `crash`
(ends a moment after its start), `late` (ends after it became ready), `sick` (never answers),
`missing` (its image cannot be pulled), or `vanished` (its image is gone at the start; so are the
images in `lost`). With `STOP: slow` a replica takes its whole grace period to end. A job runs for
`SECONDS` and exits with `CODE`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshd.discovery.probe import PLAIN, ProbeOpening
from meshd.model.output import OutputLine, OutputQuery
from meshd.model.runtime import (
    AddressRange,
    Availability,
    Capabilities,
    CommandResult,
    Holder,
    ImageProgress,
    MeshAddress,
    Node,
    ObservedReplica,
    PortRedirect,
    PortRedirects,
    ReplicaSpec,
    ReplicaState,
)
from meshd.model.volume import RuntimeVolume
from meshd.runtime.base import (
    ONE_NODE,
    EventKind,
    ImageMissing,
    ReplicaNotFound,
    ReplicaRunning,
    RuntimeEvent,
    RuntimeUnavailable,
    StartFailed,
    Unsupported,
)
from meshd.spec import labels
from meshd.spec.model import ContainerHook, HealthCheck, Network, Service
from tests.fakes.virtual import clock

READY = "/ready"


@dataclass
class Box:
    """One container."""

    seen: ObservedReplica
    behave: str
    answers_at: float
    hangs: bool = False
    unready: bool = False
    slow_stop: bool = False

    @property
    def alive(self) -> bool:
        return self.seen.state in (ReplicaState.RUNNING, ReplicaState.PAUSED)

    @property
    def running(self) -> bool:
        return self.alive or self.seen.state is ReplicaState.STOPPING

    def answers(self, now: float) -> bool:
        return (
            self.seen.state is ReplicaState.RUNNING
            and not self.hangs
            and self.behave != "sick"
            and now >= self.answers_at
        )


class SimRuntime:
    """The `Runtime` protocol over boxes. `on_stop` is called before one of ours is stopped."""

    def __init__(self, dice: random.Random) -> None:
        self.boxes: dict[str, Box] = {}
        self.claimed: dict[str, Holder] = {}
        self.lost: set[str] = set()
        self.dice = dice
        self.down = False
        self.bad_luck = 0.02
        self.late_answer = 0.0
        """Seconds from the end of a removal until it is answered."""
        self.born_unready = False
        self.started = 0
        self.machines = {"sim": Node("sim", 64.0, 2**36)}
        """The nodes by name. A replica is placed on the one with the fewest."""
        self.stopped: list[str] = []
        self.executed: list[tuple[str, str]] = []
        """Replica and first word of each command that ran in one."""
        self.peaks: dict[str, int] = {}
        """The most containers of a service that had not ended at the same time."""
        self.volume_data: dict[str, bytes] = {}
        """The content of each volume."""
        self.volumes_of: dict[str, tuple[str, ...]] = {}
        """The volumes of each service, by PROJECT/SERVICE."""
        self.unobtainable: dict[str, str] = {}
        """Why images cannot be had, by image."""
        self.staged: dict[str, bytes] = {}
        self.on_stop = lambda name: None
        self._watchers: list[asyncio.Queue[RuntimeEvent | None]] = []
        self._port = 1000
        self._tasks: set[asyncio.Task[None]] = set()

    name = "sim"
    token_address = ""
    own_node = ""
    capabilities = Capabilities(True, True, True, True, True, True, True)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def nodes(self) -> Sequence[Node]:
        return [node for node in self.machines.values() if node.takes_replicas]

    async def all_nodes(self) -> Sequence[Node]:
        self._check()
        return list(self.machines.values())

    async def set_availability(
        self, node: str, availability: Availability, drain_until: float = 0.0
    ) -> None:
        if len(self.machines) == 1:
            raise Unsupported(ONE_NODE)
        self.machines[node] = replace(
            self.machines[node], availability=availability, drain_until=drain_until
        )

    def _place(self) -> str:
        """Return the node with the fewest replicas of those that take some."""
        counts = {name: 0 for name, node in self.machines.items() if node.takes_replicas}
        if not counts:
            raise StartFailed("no suitable node")
        for box in self.boxes.values():
            if box.seen.node in counts:
                counts[box.seen.node] += 1
        return min(counts, key=lambda name: (counts[name], name))

    def _check(self) -> None:
        if self.down:
            raise RuntimeUnavailable("the engine is down")

    async def _lag(self) -> None:
        self._check()
        await asyncio.sleep(self.dice.uniform(0.0, 0.02))
        self._check()

    async def list(self) -> Sequence[ObservedReplica]:
        await self._lag()
        return [box.seen for box in self.boxes.values() if labels.JOB not in box.seen.labels]

    async def jobs(self) -> Sequence[ObservedReplica]:
        await self._lag()
        return [box.seen for box in self.boxes.values() if labels.JOB in box.seen.labels]

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            if self.down:
                await asyncio.sleep(0.2)
                continue
            queue: asyncio.Queue[RuntimeEvent | None] = asyncio.Queue()
            self._watchers.append(queue)
            yield RuntimeEvent(EventKind.RESYNC)
            while (event := await queue.get()) is not None:
                yield event

    def _emit(self, kind: EventKind, name: str) -> None:
        box = self.boxes.get(name)
        if box is not None and labels.JOB in box.seen.labels:
            return
        event = RuntimeEvent(kind, name, clock(), box.seen if box else None)
        if self.dice.random() < 0.1:
            return  # lost: the listing makes up for it
        for queue in self._watchers:
            queue.put_nowait(event)

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        return self.unobtainable.get(service.image)

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        return services

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        await self._lag()
        if service.environment.get("BEHAVE") == "missing":
            raise ImageMissing(f"image {service.image} does not exist")

    def image_progress(self) -> Sequence[ImageProgress]:
        return ()

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        await self._lag()
        return [MeshAddress(name, "10.0.0.1", 80) for name in services]

    async def set_host_names(
        self,
        name: str,
        names: Mapping[str, str],
        blocks: Sequence[str],
    ) -> None:
        return None

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        return PortRedirects(frozenset(redirects))

    @property
    def is_local(self) -> bool:
        return False

    async def address_ranges(
        self,
        project: str,
    ) -> Sequence[AddressRange]:
        return ()

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        await self._lag()
        if self.dice.random() < self.bad_luck:
            raise StartFailed("the start failed at random")
        image = replica.service.image
        if replica.service.environment.get("BEHAVE") == "vanished" or image in self.lost:
            raise ImageMissing(f"image {image} is not on the engine")
        now = clock()
        self._port += 1
        self.started += 1
        port = self._port
        marks = {labels.INSTANCE: replica.instance}
        if replica.clone_of is not None:
            marks[labels.CLONE_OF] = replica.clone_of
        if replica.job:
            marks[labels.JOB] = replica.name
        seen = ObservedReplica(
            name=replica.name,
            node=self._place(),
            runtime_id=f"id{self._port}",
            project=replica.project,
            service=replica.service.name,
            revision=replica.revision,
            state=ReplicaState.CREATED,
            managed=True,
            created_at=now,
            labels=marks,
        )
        behave = replica.service.environment.get("BEHAVE", "good")
        self.boxes[replica.name] = Box(
            seen,
            behave,
            now + self.dice.uniform(0.2, 1.0),
            unready=self.born_unready,
            slow_stop=replica.service.environment.get("STOP") == "slow",
        )
        if not replica.job:
            self._count(seen.service)
        await self._lag()
        box = self.boxes.get(replica.name)
        if box is None:
            raise StartFailed("it was removed while it started")
        box.seen = replace(
            box.seen,
            state=ReplicaState.RUNNING,
            host="10.0.0.9",
            port=port,
            started_at=clock(),
        )
        self._emit(EventKind.STARTED, replica.name)
        if replica.job or behave == "once":
            environment = replica.service.environment
            after = float(environment.get("SECONDS", "1"))
            self._spawn(self._crash(replica.name, after, int(environment.get("CODE", "0"))))
        elif behave in ("crash", "late"):
            after = 0.3 if behave == "crash" else 3.0
            self._spawn(self._crash(replica.name, after))
        return box.seen

    def _count(self, service: str) -> None:
        count = sum(
            box.seen.service == service and box.seen.state is not ReplicaState.EXITED
            for box in self.boxes.values()
            if labels.JOB not in box.seen.labels
        )
        self.peaks[service] = max(count, self.peaks.get(service, 0))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _crash(self, name: str, after: float, code: int = 1) -> None:
        await asyncio.sleep(after)
        self.end(name, code)

    def end(self, name: str, code: int, oom_killed: bool = False) -> None:
        """The process of a box ends by itself."""
        box = self.boxes.get(name)
        if box is None or box.seen.state is ReplicaState.EXITED:
            return
        box.seen = replace(
            box.seen,
            state=ReplicaState.EXITED,
            exit_code=code,
            oom_killed=oom_killed,
            host=None,
            port=0,
            finished_at=clock(),
        )
        self._emit(EventKind.DIED, name)

    async def stop_by_others(self, name: str) -> None:
        """A user runs `docker stop`."""
        box = self.boxes.get(name)
        if box is None or not box.alive:
            return
        box.seen = replace(box.seen, state=ReplicaState.STOPPING)
        self._emit(EventKind.STOPPING, name)
        await asyncio.sleep(1.0)
        self.end(name, 0)

    def change_by_others(self, name: str, **seen: Any) -> None:
        """A user, or the container's health check, changes what the engine reports of it."""
        box = self.boxes.get(name)
        if box is not None and box.alive:
            box.seen = replace(box.seen, **seen)
            self._emit(EventKind.CHANGED, name)

    def pause_by_others(self, name: str) -> None:
        """A user runs `docker pause`."""
        self.change_by_others(name, state=ReplicaState.PAUSED)

    def duplicate_by_others(self, name: str) -> None:
        """A user runs another container with the labels of this one."""
        box = self.boxes[name]
        self._port += 1
        twin = f"{name}-{self._port}"
        seen = replace(
            box.seen,
            name=twin,
            runtime_id=f"id{self._port}",
            port=self._port,
            created_at=clock(),
            started_at=clock(),
            drift=f"carries the labels of {name}",
        )
        self.boxes[twin] = Box(seen, box.behave, clock() + 0.5)
        self._emit(EventKind.STARTED, twin)

    def remove_by_others(self, name: str) -> None:
        """A user runs `docker rm -f`."""
        self.end(name, 137)
        self.boxes.pop(name, None)
        self._emit(EventKind.REMOVED, name)

    def go_down(self) -> None:
        self.down = True
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers.clear()

    def come_back(self, live_restore: bool) -> None:
        if not live_restore:
            for name in list(self.boxes):
                self.end(name, 137)
        self.down = False

    async def stop(self, name: str, grace: float) -> None:
        self._check()
        box = self.boxes.get(name)
        if box is None:
            raise ReplicaNotFound(name)
        if box.running:
            self.on_stop(name)
            self.stopped.append(name)
            box.seen = replace(box.seen, state=ReplicaState.STOPPING)
            self._emit(EventKind.STOPPING, name)
            delay = grace if box.slow_stop else self.dice.uniform(0.05, 0.5)
            # The engine completes a stop also if the process that asked for it is killed.
            self._spawn(self._crash(name, delay, 137 if box.slow_stop else 0))
            await asyncio.sleep(delay)
        await self._lag()

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """The command `fail` fails, `hang` never ends, and all others end after a moment."""
        await self._lag()
        box = self.boxes.get(name)
        if box is None or not box.running:
            raise ReplicaNotFound(name)
        self.executed.append((name, hook.command[0]))
        if hook.command[0] == "hang":
            await asyncio.sleep(seconds)
            raise StartFailed(f"'hang' did not end within {seconds:g} s")
        await asyncio.sleep(self.dice.uniform(0.1, 1.0))
        return CommandResult(int(hook.command[0] == "fail"), ("last line of the command",))

    async def remove(self, name: str) -> None:
        await self._lag()
        box = self.boxes.get(name)
        if box is None:
            raise ReplicaNotFound(name)
        if box.seen.state is ReplicaState.RUNNING:
            raise ReplicaRunning(name)
        self.boxes.pop(name, None)
        self._emit(EventKind.REMOVED, name)
        await asyncio.sleep(self.late_answer)

    async def pause(self, name: str) -> None:
        await self._freeze(name, ReplicaState.PAUSED, EventKind.PAUSED)

    async def unpause(self, name: str) -> None:
        await self._freeze(name, ReplicaState.RUNNING, EventKind.UNPAUSED)

    async def _freeze(self, name: str, state: ReplicaState, kind: EventKind) -> None:
        await self._lag()
        box = self.boxes.get(name)
        if box is None or not box.alive:
            raise ReplicaNotFound(name)
        box.seen = replace(box.seen, state=state)
        self._emit(kind, name)

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        await self._lag()
        return ["last line"]

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        await self._lag()
        return [OutputLine(1.0, "last line")]

    async def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        yield OutputLine(1.0, "line")

    async def volumes(self) -> Sequence[RuntimeVolume]:
        users: dict[str, list[Box]] = {name: [] for name in self.volume_data}
        for box in self.boxes.values():
            for name in self.volumes_of.get(f"{box.seen.project}/{box.seen.service}", ()):
                users[name].append(box)
        return [
            RuntimeVolume(
                name,
                name.partition("_")[0],
                containers=tuple(box.seen.name for box in boxes),
                running=tuple(b.seen.name for b in boxes if b.seen.state is ReplicaState.RUNNING),
            )
            for name, boxes in users.items()
        ]

    async def read_volume(self, name: str) -> AsyncIterator[bytes]:
        for byte in self.volume_data[name]:
            await asyncio.sleep(1.0)
            yield bytes([byte])

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:
        self.staged[name] = b"".join([chunk async for chunk in data])

    async def commit_volume(self, name: str) -> None:
        self.volume_data[name] = self.staged.pop(name)

    async def discard_staged(self, name: str) -> None:
        self.staged.pop(name, None)

    async def remove_volume(self, name: str) -> None:
        del self.volume_data[name]

    async def is_volume_empty(self, name: str) -> bool:
        return not self.volume_data[name]

    async def claims(self) -> Mapping[str, Holder]:
        await self._lag()
        return dict(self.claimed)

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        await self._lag()
        if instead_of is not None and self.claimed.get(project) == instead_of:
            del self.claimed[project]
        return self.claimed.setdefault(project, holder)

    async def unclaim(self, project: str, holder: Holder) -> None:
        await self._lag()
        if self.claimed.get(project) == holder:
            del self.claimed[project]

    async def teardown(self, project: str) -> None:
        await self._lag()

    async def probe(
        self,
        host: str,
        port: int,
        health: HealthCheck,
        path: str = "",
        opening: ProbeOpening = PLAIN,
    ) -> str | None:
        """What an active probe finds at a port."""
        await asyncio.sleep(0.002)
        for box in self.boxes.values():
            if box.seen.port == port and box.answers(clock()):
                busy = box.unready and health.path == READY
                return f"GET {READY} answered 503" if busy else None
        return "connection refused"
