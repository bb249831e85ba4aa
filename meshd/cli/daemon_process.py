"""Starting a daemon, and seeing it end.

A daemon is the supervisor (`python -m proxy`) with the control process, and where replicas
are local processes the keeper, as its children. It leads a session of its own, so that a
Ctrl-C in the terminal reaches the command alone, which then ends everything in order. What
it logs goes to `daemon.log` in the state directory.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from meshd.api.client import wait_for_daemon
from meshd.cli import output
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.standalone.build import build_span_config
from meshd.store import presence
from proxy.ipc import address as addresses
from proxy.ipc.config import ChildConfig, LogConfig, SupervisorConfig

START_SECONDS: Final = 20.0
END_SECONDS: Final = 90.0
LONGEST_SOCKET_PATH: Final = 100


class DaemonStartError(Exception):
    """The daemon cannot be started; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a daemon is started with; addresses are `HOST:PORT`. `starts` is how many replicas may
    start at once on a node; 0: as many as it has CPUs. `adopt`: take in what others started.
    `front` is what holds for the proxy as a whole. `filters`: keep containers from the host."""

    state: Path
    runtime: str
    listen: tuple[str, ...]
    metrics: str
    workers: int
    starts: int = 0
    adopt: bool = True
    front: ProxySettings = field(default_factory=ProxySettings)
    filters: bool = True

    def config(self) -> SupervisorConfig:
        """The supervisor's configuration with its children; the keeper comes first and ends
        last, since the control process needs it."""
        state = str(self.state)
        control = ChildConfig(
            name="control",
            argv=_python(
                "meshd.daemon", "--state", state, "--runtime", self.runtime,
                "--metrics", self.metrics, "--starts", str(self.starts),
                *(() if self.adopt else ("--no-adopt",)),
                *(() if self.filters else ("--no-filter",)),
                *(f"--trusted-proxy={each}" for each in self.front.trusted_proxies),
            ),
            stop_seconds=30.0,
        )  # fmt: skip
        keeper = ChildConfig(
            name="keeper",
            argv=_python("meshd.runtime.process.keeper", "--state", state),
            stop_seconds=30.0,
        )
        return SupervisorConfig(
            listen=self.listen,
            workers=self.workers,
            state_dir=state,
            pid_file=str(pid_file(self.state)),
            children=(keeper, control) if self.runtime == "process" else (control,),
            access_log=self._access_log(),
            spans=build_span_config(self.front),
        )

    def _access_log(self) -> LogConfig:
        """A file of its own where none is named: our standard output is the daemon's log."""
        wanted = self.front.access_log
        path = wanted.path or str(self.state / "access.log")
        return LogConfig(wanted.mode, wanted.format, path, wanted.sample)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """Our own interpreter; -P keeps whatever lies in the current directory out of it."""
    return (sys.executable, "-P", "-m", module, *arguments)


def pid_file(state: Path) -> Path:
    """Where the supervisor writes its process id."""
    return state / presence.PID_FILE


def running(state: Path) -> int | None:
    """The process id of the daemon of that state directory, None when none runs."""
    return presence.supervisor_pid(state)


def _config_file(state: Path) -> Path:
    return state / presence.CONFIG_FILE


def _started_with(state: Path) -> SupervisorConfig | None:
    try:
        return msgspec.json.decode(_config_file(state).read_bytes(), type=SupervisorConfig)
    except (OSError, msgspec.MsgspecError):
        return None


def listens_on(state: Path) -> tuple[str, ...]:
    """Where the daemon of that state directory was told to listen; nothing when not known."""
    found = _started_with(state)
    return found.listen if found else ()


def runs_with(wish: Wish) -> bool:
    """Whether the daemon of that state directory was started with the same `front`."""
    wanted = wish.config()
    found = _started_with(wish.state)
    if found is None:
        return True
    trusted = {each for child in found.children for each in child.argv if "-proxy=" in each}
    wished = {f"--trusted-proxy={each}" for each in wish.front.trusted_proxies}
    same = (found.access_log, found.spans) == (wanted.access_log, wanted.spans)
    return same and trusted == wished


def _log_file(state: Path) -> Path:
    return state / "daemon.log"


def prepare_state(state: Path) -> None:
    """Makes the state directory, for its owner alone. Raises CannotStart."""
    if len(os.fsencode(state / "keeper.sock")) > LONGEST_SOCKET_PATH:
        raise DaemonStartError(f"{state} is too long a path for sockets; choose another --state")
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise DaemonStartError(
            f"state directory {state} cannot be used: {error.strerror}; choose another with --state"
        ) from error


@contextlib.asynccontextmanager
async def alone(state: Path, within: float = 2 * START_SECONDS) -> AsyncIterator[None]:
    """Lets one `meshd up` at a time look for a daemon of that state directory and start it; the
    next one waits, and finds it running. Raises CannotStart."""
    try:
        descriptor = os.open(state / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DaemonStartError(
            f"state directory {state} cannot be used: {error.strerror}; choose another with --state"
        ) from error
    try:
        if not await _until(lambda: _locked(descriptor), within):
            raise DaemonStartError(f"another `meshd up` is still starting a daemon in {state}")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_addresses(wish: Wish) -> None:
    """Sees that every address can be listened on, before anything is started. Raises
    CannotStart."""
    for option, address in [("--listen", a) for a in wish.listen] + [("--metrics", wish.metrics)]:
        try:
            parsed = addresses.parse(address)
            if not parsed.path:
                family, where = addresses.resolve(parsed)
                socket.create_server(where, family=family).close()
        except (OSError, addresses.BadAddress) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise DaemonStartError(
                f"cannot listen on {address}: {why.lower()}; choose another address with {option}"
            ) from error


@dataclass(slots=True)
class DaemonProcess:
    """A daemon that we started."""

    process: subprocess.Popen[bytes]
    state: Path
    log_start: int

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it has logged since we started it."""
        with _log_file(self.state).open("rb") as log:
            log.seek(self.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Sends the supervisor a signal; nothing when it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self, within: float) -> bool:
        """Whether it has ended, waiting for it at most that many seconds."""
        return await _until(lambda: self.process.poll() is not None, within)


def spawn(wish: Wish) -> DaemonProcess:
    """Starts a daemon; it is not ready yet. Raises CannotStart."""
    check_addresses(wish)
    log_path = _log_file(wish.state)
    try:
        config = _config_file(wish.state)
        config.write_bytes(msgspec.json.format(msgspec.json.encode(wish.config())))
        with log_path.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                _python("proxy", "--config", str(config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
    except OSError as error:
        raise DaemonStartError(f"the daemon cannot be started: {error}") from error
    return DaemonProcess(process, wish.state, start)


async def wait_ready(daemon: DaemonProcess, seconds: float = START_SECONDS) -> None:
    """Waits until the daemon answers. One that does not is ended. Raises CannotStart with the
    end of its log."""
    answering = asyncio.ensure_future(wait_for_daemon(daemon.state / presence.API_SOCKET, seconds))
    ended = asyncio.ensure_future(daemon.ended(seconds))
    try:
        await asyncio.wait([answering, ended], return_when=asyncio.FIRST_COMPLETED)
        if answering.done() and answering.result() is not None:
            return
    finally:
        for task in (answering, ended):
            task.cancel()
        await asyncio.wait([answering, ended])
    code = daemon.process.poll()
    if code is None:
        daemon.signal(signal.SIGTERM)
        if not await daemon.ended(10.0):
            daemon.signal(signal.SIGKILL)
    happened = (
        f"did not answer within {output.seconds(seconds)}"
        if code is None
        else f"ended with code {code}"
    )
    raise DaemonStartError(f"the daemon {happened}; its last lines:\n{daemon.log_tail()}")


async def gone(pid: int, within: float = END_SECONDS) -> bool:
    """Whether a daemon that we did not start has ended, waiting that many seconds."""
    return await _until(lambda: not Path(f"/proc/{pid}").exists(), within)


async def _until(true: Callable[[], bool], within: float) -> bool:
    end = asyncio.get_running_loop().time() + within
    while not true():
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(0.05)
    return True
