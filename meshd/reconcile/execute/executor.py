"""Carries operations out on the runtime, and decides nothing.

At most one operation of a subject is under way at a time. Results are handed on to `on_done`;
what is under way is part of what the next pass observes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from meshd.model.operation import (
    Forget,
    Operation,
    PauseReplica,
    Prepare,
    RemoveReplica,
    ResumeReplica,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import Version
from meshd.model.runtime import ObservedReplica, ReplicaSpec
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure
from meshd.spec.model import Network, Service

_log = structlog.stdlib.get_logger(__name__)
AT_ONCE: Final = 8
TAIL: Final = 20


class OperationResult:
    """What came of an operation. `error` is None when it came off; `lines` are the last lines
    of output of a replica that is gone for good."""

    __slots__ = ("error", "lines", "operation", "replica")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.error: RuntimeFailure | None = None
        self.replica: ObservedReplica | None = None
        self.lines: Sequence[str] = ()


class Executor:
    """Runs operations as tasks. `spec_of` turns a start into what the runtime is told,
    `service_of` gives the spec and networks behind a version; `on_prepared` is awaited once a
    service has what it needs."""

    def __init__(
        self,
        runtime: Runtime,
        spec_of: Callable[[StartReplica], ReplicaSpec | None],
        service_of: Callable[[Version], tuple[Service, Sequence[Network]] | None],
        on_prepared: Callable[[str, Sequence[str]], Awaitable[None]],
        on_done: Callable[[OperationResult], None],
    ) -> None:
        self.under_way: dict[str, Operation] = {}
        self.prepared: set[Version] = set()
        self._runtime = runtime
        self._spec_of = spec_of
        self._service_of = service_of
        self._on_prepared = on_prepared
        self._on_done = on_done
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Semaphore(AT_ONCE)

    def begin(self, operation: Operation) -> bool:
        """Start carrying `operation` out, unless something is under way for its subject."""
        if operation.subject in self.under_way:
            return False
        self.under_way[operation.subject] = operation
        task = asyncio.create_task(self._run(operation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Give up what is under way; the runtime shows next time how far it came."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, operation: Operation) -> None:
        result = OperationResult(operation)
        try:
            await self._perform(operation, result)
        except RuntimeFailure as error:
            result.error = error
            if isinstance(operation, StartReplica):
                self.prepared.discard((operation.key, operation.revision))
        finally:
            del self.under_way[operation.subject]
        self._on_done(result)

    async def _perform(self, operation: Operation, result: OperationResult) -> None:
        match operation:
            case Prepare():
                await self._prepare(operation)
            case StartReplica():
                spec = self._spec_of(operation)
                if spec is None:
                    return
                async with self._gate:
                    result.replica = await self._runtime.start(spec)
            case StopReplica():
                result.lines = await self._last_lines(operation.name)
                try:
                    await self._runtime.stop(operation.name, operation.grace)
                except ReplicaNotFound:
                    _log.debug("already gone", replica=operation.name)
            case PauseReplica():
                await self._runtime.pause(operation.name)
            case ResumeReplica():
                await self._runtime.unpause(operation.name)
            case RemoveReplica():
                if operation.failed:
                    result.lines = await self._last_lines(operation.name)
                try:
                    await self._runtime.remove(operation.name)
                except ReplicaNotFound:
                    _log.debug("already gone", replica=operation.name)
            case Forget():
                await self._runtime.teardown(operation.project)
            case _:
                raise TypeError(f"not the executor's to do: {operation}")

    async def _prepare(self, operation: Prepare) -> None:
        version = (f"{operation.project}/{operation.service}", operation.revision)
        found = self._service_of(version)
        if found is None:
            return
        service, networks = found
        await self._runtime.prepare(operation.project, service, networks)
        await self._on_prepared(operation.project, (operation.service,))
        self.prepared.add(version)

    async def _last_lines(self, name: str) -> Sequence[str]:
        try:
            return await self._runtime.logs(name, TAIL)
        except RuntimeFailure as error:
            return [f"(no output to be had: {error})"]
