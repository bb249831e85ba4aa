"""One local replica: a process group that the keeper started and that dies with it. Owned by
`keeper_replicas`."""

import asyncio
import ctypes
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable

from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, RuntimeFailure, StartFailed
from meshd.runtime.process.keeper_output import Output
from meshd.runtime.process.keeper_protocol import Launch
from meshd.spec.signals import parse_signal

READ_BYTES = 65536
"""Bytes per read of the output: the size of a Linux pipe."""
KILL_WAIT = 10.0
"""Seconds to wait after KILL; only a process in uninterruptible sleep takes longer."""
PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals) -> None:
    """Make the kernel send `number` to this process when the thread that started it ends."""
    if _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


class ReplicaProcess:
    """Start the process, capture its output, and report later changes to `on_event`.

    The process leads its own group. When it ends, the rest of the group ends too, as in a container
    whose first process ends.
    """

    def __init__(
        self,
        launch: Launch,
        port: int,
        output: Output,
        on_event: Callable[["ReplicaProcess", EventKind], None],
    ) -> None:
        self.launch = launch
        self.port = port
        self.output = output
        self._on_event = on_event
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._exit_code: int | None = None
        self._stopping = False
        self._paused = False
        self._started_at = 0.0
        self._finished_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._ended.is_set()

    def spawn(self) -> None:
        """Start the process. Raises StartFailed with the reason."""
        launch = self.launch
        read_end, write_end = os.pipe()
        keeper = os.getpid()

        def bind_to_keeper() -> None:
            die_with_parent(signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(1)

        try:
            self._process = subprocess.Popen(
                launch.argv,
                cwd=launch.directory or None,
                env={**launch.environment, "PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
                preexec_fn=bind_to_keeper,  # noqa: PLW1509 (the keeper runs no threads)
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            os.close(read_end)
            raise StartFailed(_start_error(launch, error)) from error
        finally:
            os.close(write_end)
        self._started_at = time.time()
        self._pipe = read_end
        os.set_blocking(read_end, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe, self._on_output)
        loop.add_reader(self._pidfd, self._on_exit)

    async def stop(self, grace: float) -> None:
        """Send the stop signal to the group, KILL after `grace` seconds; return once it has
        ended. Raises RuntimeFailure if even KILL did not end it."""
        if self.ended:
            return
        if not self._stopping:
            self._stopping = True
            self._on_event(self, EventKind.STOPPING)
        self._signal(parse_signal(self.launch.stop_signal) or signal.SIGTERM)
        if self._paused:
            self._signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Send KILL to the group. Raises RuntimeFailure if it survives."""
        self._signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_WAIT):
                await self._ended.wait()
        except TimeoutError as error:
            raise RuntimeFailure(
                f"replica {self.launch.name}: still running {KILL_WAIT:.0f} s after KILL"
            ) from error

    def pause(self) -> None:
        """Freeze the group; it still accepts TCP connections, like a paused container."""
        if not self._paused:
            self._paused = True
            self._signal(signal.SIGSTOP)
            self._on_event(self, EventKind.PAUSED)

    def unpause(self) -> None:
        """Resume the group."""
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)
            self._on_event(self, EventKind.UNPAUSED)

    def observe(self) -> ObservedReplica:
        """Return the replica as it is now."""
        launch = self.launch
        return ObservedReplica(
            name=launch.name,
            runtime_id=str(self._process.pid) if self._process else "",
            project=launch.project,
            service=launch.service,
            revision=launch.revision,
            state=self._state(),
            managed=True,
            host="127.0.0.1",
            port=self.port,
            node=platform.node(),
            exit_code=self._exit_code,
            created_at=self._started_at,
            started_at=self._started_at,
            finished_at=self._finished_at,
            addresses=("127.0.0.1",),
            labels=launch.labels,
        )

    def _state(self) -> ReplicaState:
        if self.ended:
            return ReplicaState.EXITED
        if self._stopping:
            return ReplicaState.STOPPING
        return ReplicaState.PAUSED if self._paused else ReplicaState.RUNNING

    def _signal(self, number: int) -> None:
        # The process is not reaped before `_on_exit`, so its group id cannot belong to another
        # process yet.
        if self._process is not None and not self.ended:
            os.killpg(self._process.pid, number)

    def _on_output(self) -> None:
        try:
            data = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self.output.feed(data)
        else:
            self._close_pipe()

    def _on_exit(self) -> None:
        process = self._process
        if process is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        self._exit_code = code if code >= 0 else 128 - code
        self._finished_at = time.time()
        self._read_rest()
        self.output.close()
        self._ended.set()
        self._on_event(self, EventKind.DIED)

    def _read_rest(self) -> None:
        """Read what the process wrote before its end; bounded, because a process that left the
        group may keep the pipe and continue to write."""
        for _ in range(64):
            if self._pipe < 0:
                return
            try:
                data = os.read(self._pipe, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self.output.feed(data)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


def _start_error(launch: Launch, error: Exception) -> str:
    program = launch.argv[0]
    if isinstance(error, FileNotFoundError) and error.filename == launch.directory:
        reason = f"its directory {launch.directory} does not exist"
    elif isinstance(error, FileNotFoundError):
        path = launch.environment.get("PATH", "")
        reason = f"program {program!r} not found (PATH is {path})"
    elif isinstance(error, PermissionError):
        reason = f"{error.filename} cannot be executed: {error.strerror}"
    else:
        reason = f"{program!r} cannot be executed: {error}"
    return f"replica {launch.name} of service {launch.service}: {reason}"
