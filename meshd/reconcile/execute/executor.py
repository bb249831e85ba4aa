"""Carries operations out on the runtime, and decides nothing.

This is the only module that starts, stops, prepares or removes anything on a runtime. The
reconciler owns the one Executor: it begins the operations of a plan (`begin`), and performs those
that deployments and jobs request (`perform`). At most one operation per subject runs at a time.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog

from meshd.model.operation import (
    ForgetProject,
    Operation,
    PauseReplica,
    PrepareRevision,
    PrepareService,
    ReadOutput,
    RemoveJob,
    RemoveReplica,
    RemoveVolume,
    RestoreVolume,
    ResumeReplica,
    SetAvailability,
    StartJob,
    StartReplica,
    StopJob,
    StopReplica,
    Urgency,
)
from meshd.model.output import OutputLine, OutputQuery
from meshd.model.replica import Version
from meshd.model.runtime import (
    CommandResult,
    ObservedReplica,
    PortRedirect,
    PortRedirects,
    ReplicaSpec,
)
from meshd.publish.gateways import Gateways
from meshd.reconcile.execute.replica_spec import as_init_container
from meshd.reconcile.execute.replica_spec_builder import ReplicaSpecBuilder
from meshd.runtime.base import (
    ImageMissing,
    ReplicaNotFound,
    Runtime,
    RuntimeFailure,
    RuntimeUnavailable,
    StartFailed,
)
from meshd.spec.model import ContainerHook, Network, Service
from meshd.store.output_archive import LINES_KEPT

_log = structlog.stdlib.get_logger(__name__)
CONCURRENT_STARTS: Final = 8
"""Replicas that are started at the same time; more would only queue up in the engine. As many more
that replace failed ones need not wait for these."""
CONCURRENT_JOB_STARTS: Final = 2
"""Jobs that are prepared and started at the same time, so that replicas need not wait for them."""
HOOK_SECONDS: Final = 300.0
"""Seconds that a `post_start` command may take: as long as the hook of a rollout by default."""
MIN_HOOK_SECONDS: Final = 1.0
"""Seconds that `pre_stop` commands get even if the grace period is shorter."""
HOOK_LINES: Final = 5
"""Last lines of output of a failed command that are part of the reason."""
OUTPUT_DELAY: Final = 0.3
"""Seconds in which an engine writes the last lines of a replica that has ended."""
LAST_LINES: Final = 20
"""Lines of output kept of a replica that is stopped or removed."""


class OperationResult:
    """Result of one operation on the runtime.

    - `error`: why it failed; None if it succeeded.
    - `replica`: the container that was started.
    - `hook_failure`: why a `pre_stop` command failed; empty: none did.
    - `lines`: the last lines of output of a replica that failed, was stopped or removed.
    """

    __slots__ = ("error", "hook_failure", "lines", "operation", "replica")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.error: RuntimeFailure | None = None
        self.replica: ObservedReplica | None = None
        self.hook_failure = ""
        self.lines: Sequence[str] = ()


class Executor:
    """Runs operations on the runtime. `builder` gives the spec behind a version, a start or a job;
    `gateways` learns the addresses of prepared networks; `on_done` gets the result of each
    operation that was begun (not of those performed for a caller); `keep_output` gets the name and
    the output of each replica before it is removed."""

    def __init__(
        self,
        runtime: Runtime,
        builder: ReplicaSpecBuilder,
        gateways: Gateways,
        on_done: Callable[[OperationResult], None],
        keep_output: Callable[[str, Sequence[OutputLine]], None],
    ) -> None:
        self._runtime = runtime
        self._builder = builder
        self._gateways = gateways
        self._on_done = on_done
        self._keep_output = keep_output
        self._running: dict[str, Operation] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._prepared: set[Version] = set()
        self._step_addresses: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_limit = asyncio.Semaphore(CONCURRENT_STARTS)
        self._heal_limit = asyncio.Semaphore(CONCURRENT_STARTS)
        self._job_start_limit = asyncio.Semaphore(CONCURRENT_JOB_STARTS)

    @property
    def step_addresses(self) -> Mapping[str, str]:
        """The service as which each container of a `pre_start` step calls others, by address."""
        return self._step_addresses

    @property
    def running(self) -> Mapping[str, Operation]:
        """The operations that run now, by subject."""
        return self._running

    @property
    def prepared(self) -> frozenset[Version]:
        """The versions whose image and networks are ready."""
        return frozenset(self._prepared)

    def begin(self, operation: Operation) -> bool:
        """Start `operation` as a task and return True; False if one runs for its subject."""
        if operation.subject in self._running:
            return False
        self._register(operation)
        task = asyncio.create_task(self._run(operation), name=operation.subject)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def cancel_start(self, name: str) -> None:
        """Cancel the start of a replica whose `pre_start` or `post_start` commands still run."""
        if isinstance(self._running.get(name), StartReplica):
            for task in self._tasks:
                if task.get_name() == name:
                    task.cancel()

    async def perform(self, operation: Operation) -> OperationResult:
        """Carry `operation` out and return its result, after any other operation on its subject
        has ended. Raises RuntimeFailure."""
        while end := self._ends.get(operation.subject):
            await end.wait()
        result = OperationResult(operation)
        self._register(operation)
        try:
            await self._perform(operation, result)
        finally:
            self._unregister(operation)
        return result

    async def resolve(self, services: Sequence[Service], fetch: bool) -> Sequence[Service]:
        """Return the services with images and build contexts pinned; `fetch` pulls images first.
        Raises RuntimeFailure."""
        return await self._runtime.resolve(services, fetch)

    async def set_host_names(
        self, name: str, names: Mapping[str, str], blocks: Sequence[str]
    ) -> None:
        """Change the names that a running replica knows. Raises RuntimeFailure."""
        await self._runtime.set_host_names(name, names, blocks)

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        """Lead new connections to ports of the host elsewhere; return those in effect."""
        return await self._runtime.redirect_ports(redirects)

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """Run a command in a running replica. Raises RuntimeFailure."""
        return await self._runtime.execute(name, hook, seconds)

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Receive the data that RestoreVolume takes. Raises RuntimeFailure, and what `data`
        raises."""
        await self._runtime.stage_volume(name, data)

    async def discard_staged(self, name: str) -> None:
        """Remove what was staged for a volume. Raises RuntimeFailure."""
        await self._runtime.discard_staged(name)

    async def close(self) -> None:
        """Cancel the operations that were begun; the next pass sees how far they got."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _register(self, operation: Operation) -> None:
        self._running[operation.subject] = operation
        self._ends[operation.subject] = asyncio.Event()

    def _unregister(self, operation: Operation) -> None:
        del self._running[operation.subject]
        self._ends.pop(operation.subject).set()

    async def _run(self, operation: Operation) -> None:
        result = OperationResult(operation)
        try:
            await self._perform(operation, result)
        except RuntimeFailure as error:
            result.error = error
            if isinstance(operation, StartReplica):
                self._prepared.discard((operation.key, operation.revision))
        finally:
            self._unregister(operation)
        self._on_done(result)

    async def _perform(self, operation: Operation, result: OperationResult) -> None:
        match operation:
            case PrepareRevision():
                version = (f"{operation.project}/{operation.service}", operation.revision)
                found = self._builder.service(version)
                if found is not None:
                    await self._prepare(operation.project, *found, operation.revision)
            case PrepareService():
                service, networks = operation.spec, operation.networks
                version = (f"{operation.project}/{service.name}", operation.revision)
                if version not in self._prepared:
                    await self._prepare(operation.project, service, networks, operation.revision)
            case StartReplica():
                spec = self._builder.replica(operation)
                if spec is not None:
                    await self._run_init_containers(spec)
                    heals = operation.urgency is Urgency.HEAL
                    async with self._heal_limit if heals else self._start_limit:
                        replica = await self._start(operation, spec)
                    await self._run_post_start(spec)
                    result.replica = replica
            case StopReplica():
                result.lines = await self._read_last_lines(operation.name)
                result.hook_failure = await self._run_pre_stop(operation)
                try:
                    await self._runtime.stop(operation.name, operation.grace)
                except ReplicaNotFound:
                    _log.debug("replica does not exist any more", replica=operation.name)
            case ReadOutput():
                result.lines = await self._read_last_lines(operation.name)
            case PauseReplica():
                await self._runtime.pause(operation.name)
            case ResumeReplica():
                await self._runtime.unpause(operation.name)
            case RemoveReplica():
                if operation.failed:
                    result.lines = await self._read_last_lines(operation.name)
                # Before the removal: the runtime completes it even if this task is cancelled.
                self._keep_output(operation.name, await self._read_output(operation.name))
                try:
                    await self._runtime.remove(operation.name)
                except ReplicaNotFound:
                    _log.debug("replica does not exist any more", replica=operation.name)
            case ForgetProject():
                prefix = f"{operation.project}/"  # its networks end
                self._prepared = {v for v in self._prepared if not v[0].startswith(prefix)}
                await self._runtime.teardown(operation.project)
                self._gateways.forget(operation.project)
            case StartJob():
                result.replica = await self._start_job(operation)
            case StopJob():
                await self._runtime.stop(operation.id, operation.grace)
            case RemoveJob():
                await self._runtime.remove(operation.id)
            case RestoreVolume():
                await self._runtime.commit_volume(operation.name)
            case RemoveVolume():
                await self._runtime.remove_volume(operation.name)
            case SetAvailability():
                await self._runtime.set_availability(
                    operation.node, operation.availability, operation.drain_until
                )
            case _:
                raise TypeError(f"the executor does not perform {operation}")

    async def _start(self, operation: StartReplica, spec: ReplicaSpec) -> ObservedReplica:
        """Start a replica. If its image was removed since it was prepared, as a prune does, prepare
        it again first."""
        version = (operation.key, operation.revision)
        try:
            return await self._runtime.start(spec)
        except ImageMissing:
            found = None if operation.clone_of else self._builder.service(version)
            if found is None:
                raise
        self._prepared.discard(version)
        await self._prepare(operation.project, *found, operation.revision)
        return await self._runtime.start(spec)

    async def _prepare(
        self, project: str, service: Service, networks: Sequence[Network], revision: str
    ) -> None:
        await self._runtime.prepare(project, service, networks)
        await self._gateways.discover(project, (service.name,))
        self._prepared.add((f"{project}/{service.name}", revision))

    async def _run_init_containers(self, spec: ReplicaSpec) -> None:
        """Run the `pre_start` steps of one replica. Raises RuntimeFailure if one fails."""
        key = f"{spec.project}/{spec.service.name}"
        for number, step in enumerate(spec.service.pre_start, 1):
            if not step.per_replica:
                continue
            init = as_init_container(spec, step, number)
            await self._runtime.prepare(spec.project, init.service)
            addresses: Sequence[str] = ()
            last: deque[str] = deque(maxlen=HOOK_LINES)
            try:
                addresses = (await self._runtime.start(init)).addresses
                self._step_addresses |= dict.fromkeys(addresses, key)
                async for line in self._runtime.follow(init.name, OutputQuery(HOOK_LINES)):
                    last.append(line.text)
                ended = [seen for seen in await self._runtime.jobs() if seen.name == init.name]
            finally:
                await self._discard(init.name)
                for address in addresses:
                    self._step_addresses.pop(address, None)
            code = ended[0].exit_code if ended else None
            if code != 0:
                output = "; ".join(last)
                raise StartFailed(f"pre_start step {number} exited with code {code}: {output}")

    async def _run_post_start(self, spec: ReplicaSpec) -> None:
        """Run the `post_start` commands of a replica; stop and remove it if one fails. Raises
        StartFailed then."""
        problem = await self._run_commands(spec.name, spec.service.post_start, HOOK_SECONDS)
        if problem:
            await self._discard(spec.name, spec.service.stop_grace_period)
            raise StartFailed(f"post_start: {problem}")

    async def _run_pre_stop(self, operation: StopReplica) -> str:
        """Run the `pre_stop` commands of a replica; return why one failed, empty if none did."""
        spec = self._builder.stored_spec(operation.version)
        if spec is None or not spec.pre_stop:
            return ""
        seconds = max(operation.grace, MIN_HOOK_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                return await self._run_commands(operation.name, spec.pre_stop, seconds)
        except TimeoutError:
            return f"did not end within {seconds:g} s"

    async def _run_commands(
        self, name: str, commands: Sequence[ContainerHook], seconds: float
    ) -> str:
        """Run commands in a replica; return why one failed, empty if none did or the replica has
        ended."""
        for hook in commands:
            try:
                result = await self._runtime.execute(name, hook, seconds)
            except ReplicaNotFound:
                return ""
            except StartFailed as error:
                return str(error)
            if result.exit_code:
                output = "; ".join(result.lines[-HOOK_LINES:])
                command = " ".join(hook.command)
                return f"{command!r} exited with code {result.exit_code}: {output}"
        return ""

    async def _discard(self, name: str, grace: float = 0.0) -> None:
        """Stop and remove a container that may not exist any more."""
        try:
            await self._runtime.stop(name, grace)
            await self._runtime.remove(name)
        except RuntimeFailure as error:
            _log.debug("container was not removed", name=name, error=str(error))

    async def _start_job(self, operation: StartJob) -> ObservedReplica:
        if not self._builder.may_start():
            raise RuntimeUnavailable("the proxy does not listen for calls of replicas yet")
        spec, networks = self._builder.job(operation.job)
        async with self._job_start_limit:
            await self._runtime.prepare(operation.job.project, spec.service, networks)
            return await self._runtime.start(spec)

    async def _read_output(self, name: str) -> Sequence[OutputLine]:
        try:
            return await self._runtime.timed_logs(name, OutputQuery(LINES_KEPT))
        except RuntimeFailure as error:
            _log.debug("output of a replica cannot be kept", replica=name, error=str(error))
            return ()

    async def _read_last_lines(self, name: str) -> Sequence[str]:
        """Return the last lines of output of a replica. The engine may still be writing them when
        it reports the end, so an empty output is read again."""
        try:
            lines = await self._runtime.logs(name, LAST_LINES)
            if not lines:
                await asyncio.sleep(OUTPUT_DELAY)
                lines = await self._runtime.logs(name, LAST_LINES)
            return lines
        except RuntimeFailure as error:
            return [f"(the output cannot be read: {error})"]
