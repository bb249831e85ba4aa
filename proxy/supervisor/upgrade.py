"""Binary upgrade: the supervisor replaces itself with the installed version by exec.

Called by `supervisor` (on SIGUSR2) and by `proxy.__main__` (at start). The process id stays the
same, so child processes stay children, and an init system or a container notices nothing. A
memory file carries the state across the exec; its descriptor number is in the environment. The
state holds the open sockets by number, the workers (drained once the new version's own workers
serve), the child processes and the snapshot. The new code is first checked in a separate
process, because an exec cannot be undone.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from proxy.ipc.signals import hold_signals
from proxy.ipc.sockets import OpenSockets
from proxy.wire.report import Ack
from proxy.wire.snapshot import Snapshot

STATE_FD_VARIABLE: Final = "MESHD_HANDOVER_FD"
"""Environment variable with the descriptor of the memory file. Old and new version must agree
on this name and on the fields of `UpgradeState`."""
_CHECK_SECONDS: Final = 20.0
"""Time for the new version to read its configuration; normally well under a second."""
_TURNS: Final = 3
"""Turns of the event loop until the handler of a signal that has arrived was called: one reads the
pipe that the signal was written to, one schedules the handler, one calls it."""


class RunningWorker(msgspec.Struct, frozen=True):
    """A worker process that runs across the upgrade.

    - `channel`: descriptor of its channel's socket
    - `unread`: bytes read from the channel that are not a complete message yet
    - `draining_seconds`: seconds left of its drain time; None if it does not drain
    - `keeps_tunnels`: whether it keeps tunnels while it drains
    - `protocol`: the version of the messages that it understands
    """

    worker: int
    slot: int
    pid: int
    channel: int
    unread: bytes
    last_ack: Ack | None
    draining_seconds: float | None
    keeps_tunnels: bool = False
    protocol: int = 0


class UpgradeState(msgspec.Struct, frozen=True):
    """Everything the new version takes over. Field names are a contract between versions.

    - `listening`: sockets by configured address
    - `children`: process ids by the child's name
    - `child_sockets`: sockets by `CHILD/ENVIRONMENT_VARIABLE`
    - `ticket_secrets`: the secrets of TLS session tickets
    """

    snapshot: Snapshot
    listening: dict[str, OpenSockets]
    workers: tuple[RunningWorker, ...]
    next_worker: int
    children: dict[str, int]
    child_sockets: dict[str, OpenSockets]
    ticket_secrets: tuple[bytes, ...] = ()


def load_state() -> UpgradeState | None:
    """Return the state of the version that ran before in this process; None at a first start."""
    number = os.environ.pop(STATE_FD_VARIABLE, None)
    if number is None:
        return None
    path = Path(f"/dev/fd/{number}")
    state = msgspec.msgpack.decode(path.read_bytes(), type=UpgradeState)
    os.close(int(number))
    for descriptor in _descriptors(state):
        os.set_inheritable(descriptor, False)
    return state


async def check_installed_version(config_file: str) -> str | None:
    """Run the installed version until it has read its configuration.

    Return the error text; None if it succeeds.
    """
    check = await asyncio.create_subprocess_exec(
        *_argv(config_file),
        "--check",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        pass_fds=_config_descriptor(config_file),
    )
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            _, output = await check.communicate()
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} s"
    finally:
        if check.returncode is None:
            check.kill()
            await check.communicate()  # reads what is left, as `wait` does not
    return output.decode(errors="replace").strip() if check.returncode else None


async def hold_all_signals() -> None:
    """Hold signals, and let the event loop handle those that arrived before: an exec would lose
    them."""
    hold_signals()
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def exec_installed_version(state: UpgradeState, config_file: str) -> NoReturn:
    """Replace this process with the installed version. Raises OSError.

    The new version calls `release_signals` once it has its handlers.
    """
    memory = os.memfd_create("meshd-handover", 0)
    os.write(memory, msgspec.msgpack.encode(state))
    for descriptor in _descriptors(state):
        os.set_inheritable(descriptor, True)
    environment = {**os.environ, STATE_FD_VARIABLE: str(memory)}
    try:
        os.execve(sys.executable, _argv(config_file), environment)  # noqa: S606 - the same program
    except OSError:
        os.close(memory)
        for descriptor in _descriptors(state):
            os.set_inheritable(descriptor, False)
        raise


def close_unused(inherited: Mapping[str, OpenSockets], used: Iterable[str]) -> None:
    """Close the inherited sockets whose key is not in `used`."""
    for name in inherited.keys() - set(used):
        for descriptor in set(inherited[name].descriptors):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _config_descriptor(config_file: str) -> tuple[int, ...]:
    """Return the descriptor of a configuration that is an open file without a name."""
    prefix, _, number = config_file.rpartition("/")
    return (int(number),) if prefix == "/dev/fd" else ()


def _argv(config_file: str) -> list[str]:
    return [sys.executable, "-P", "-m", "proxy", "--config", config_file]


def _descriptors(state: UpgradeState) -> set[int]:
    groups = [*state.listening.values(), *state.child_sockets.values()]
    return {d for group in groups for d in group.descriptors} | {
        worker.channel for worker in state.workers
    }
