"""A binary upgrade: the supervisor becomes its own successor, by exec.

The process id stays, so children stay ours, and an init system or a container sees nothing.
What the successor needs to go on lies in a memory file, whose descriptor it finds in the
environment: the open sockets by number, the workers (which it drains once its own serve),
the children, the snapshot. The new code is tried out first in a process of its own, since
after the exec there is no way back.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from proxy.ipc.sockets import OpenSockets
from proxy.wire.report import Ack
from proxy.wire.snapshot import Snapshot

VARIABLE: Final = "MESHD_HANDOVER_FD"
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
_TRIAL_SECONDS: Final = 20.0


class RunningWorker(msgspec.Struct, frozen=True):
    """A worker process; `unread` are bytes of its channel that make no message yet."""

    worker: int
    slot: int
    pid: int
    channel: int
    unread: bytes
    last_ack: Ack | None
    draining_seconds: float | None


class Handover(msgspec.Struct, frozen=True):
    """All that the successor is given. `listening` is by the address asked for, `children`
    maps names to process ids, `child_sockets` names and variables to sockets."""

    snapshot: Snapshot
    listening: dict[str, OpenSockets]
    workers: tuple[RunningWorker, ...]
    next_worker: int
    children: dict[str, int]
    child_sockets: dict[str, OpenSockets]


def take() -> Handover | None:
    """What our predecessor left us; None when we are the first."""
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return None
    path = Path(f"/dev/fd/{number}")
    handover = msgspec.msgpack.decode(path.read_bytes(), type=Handover)
    os.close(int(number))
    for descriptor in _descriptors(handover):
        os.set_inheritable(descriptor, False)
    return handover


async def try_out(config_file: str) -> str | None:
    """Start the new code as far as reading its configuration; what was wrong, or None."""
    trial = await asyncio.create_subprocess_exec(
        *_argv(config_file),
        "--check",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        pass_fds=_descriptor_named(config_file),
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            _, said = await trial.communicate()
    except TimeoutError:
        trial.kill()
        await trial.wait()
        return f"no answer within {_TRIAL_SECONDS:g} s"
    return said.decode(errors="replace").strip() if trial.returncode else None


def become_successor(handover: Handover, config_file: str) -> NoReturn:
    """Exec. Signals wait, blocked, until the successor handles them. Raises OSError."""
    memory = os.memfd_create("meshd-handover", 0)
    os.write(memory, msgspec.msgpack.encode(handover))
    for descriptor in _descriptors(handover):
        os.set_inheritable(descriptor, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    environment = {**os.environ, VARIABLE: str(memory)}
    os.execve(sys.executable, _argv(config_file), environment)  # noqa: S606 - ourselves


def unblock_signals() -> None:
    """Let the signals through that waited over the exec."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def close_unused(given: Mapping[str, OpenSockets], used: Iterable[str]) -> None:
    """Close what was given for addresses that nobody wants any more."""
    for name in given.keys() - set(used):
        for descriptor in set(given[name].descriptors):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _descriptor_named(config_file: str) -> tuple[int, ...]:
    """The configuration may be an open file without a name."""
    prefix, _, number = config_file.rpartition("/")
    return (int(number),) if prefix == "/dev/fd" else ()


def _argv(config_file: str) -> list[str]:
    return [sys.executable, "-P", "-m", "proxy", "--config", config_file]


def _descriptors(handover: Handover) -> set[int]:
    groups = [*handover.listening.values(), *handover.child_sockets.values()]
    return {d for group in groups for d in group.descriptors} | {
        worker.channel for worker in handover.workers
    }
