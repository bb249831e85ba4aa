"""Start a daemon, wait until it is ready, and see it end. Used by `meshd up` and `meshd down`.

A daemon is the supervisor (`python -m proxy`) with the control process (`meshd.daemon`) as its
child, and for local processes also the keeper (`meshd.runtime.process.keeper`). It leads its own
session, so that Ctrl-C in the terminal reaches only the command, which then ends the daemon in
order. It logs to `daemon.log` in the state directory.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from meshd.api.client import wait_for_daemon
from meshd.api.dto import Status
from meshd.api.tcp_address import TcpSettings
from meshd.cli import output
from meshd.spec.model.acme import ACME_VARIABLE
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.standalone.build import build_span_config
from meshd.standalone.listeners import build_listeners, list_acme
from meshd.store import presence
from meshd.store.store import read_stored_projects
from meshd.ui.settings import PageSettings
from proxy.ipc import address as addresses
from proxy.ipc.config import ChildConfig, LogConfig, SupervisorConfig
from proxy.peer.files import peer_config

START_SECONDS: Final = 20.0
"""Seconds for a daemon to answer: it starts in one or two, also on a loaded machine in ten."""
END_SECONDS: Final = 90.0
"""Seconds for a daemon to end in order: replicas drain, then stop."""
CHILD_STOP_SECONDS: Final = 30.0
"""Seconds between SIGTERM and SIGKILL for the control process and the keeper."""
CONTROL_SILENCE_SECONDS: Final = 10.0
"""Seconds without a sign of life after which a control process is replaced; as for a worker."""
KEEPER_SILENCE_SECONDS: Final = 30.0
"""The same for the keeper: longer, because its replicas end with it."""
TERM_SECONDS: Final = 10.0
"""Seconds between SIGTERM and SIGKILL for a daemon that did not become ready."""
MAX_SOCKET_PATH: Final = 100
"""Bytes; `sun_path` of unix(7) has 108, and other sockets have slightly longer names."""
LOG_LINES: Final = 20
"""Last lines of the log that an error message includes."""
POLL_SECONDS: Final = 0.05
"""Seconds between two checks of a condition."""


class DaemonStartError(Exception):
    """The daemon cannot be started; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """How to start a daemon.

    - `runtime`: `docker`, `process` or `swarm`.
    - `listen`, `metrics`: addresses `HOST:PORT` of the proxy, and of metrics and status.
    - `workers`: number of proxy worker processes.
    - `start_limit`: replicas that may start at once on a node; 0: one per CPU, at least two.
    - `adopt`: adopt containers that something else started.
    - `proxy`: settings of the proxy as a whole.
    - `api`: where the API is served over TCP; None: at the Unix socket only.
    - `ui`: where the web page is served; None: nowhere.
    - `lease`: name of the lease of which one holder leads; empty: there are no others.
    - `node_listen`: address for the proxies of other nodes; empty: none.
    - `authority_file`: file with the authority of the mesh; empty: the state has it.
    - `peer_listen`: address at which the proxy of this host accepts those of other nodes.
    - `allow_clear_text`: whether requests go in clear text to nodes without a proxy.
    - `record`: whether the proxy workers have a flight recorder.
    - `filter_host`: limit what containers of internal networks reach on the host.
    """

    state: Path
    runtime: str
    listen: tuple[str, ...]
    metrics: str
    workers: int
    start_limit: int = 0
    adopt: bool = True
    proxy: ProxySettings = field(default_factory=ProxySettings)
    filter_host: bool = True
    record: bool = True
    api: TcpSettings | None = None
    ui: PageSettings | None = None
    lease: str = ""
    node_listen: str = ""
    authority_file: str = ""
    peer_listen: str = ""
    allow_clear_text: bool = False

    def config(self) -> SupervisorConfig:
        """Return the configuration of the supervisor and its children. The keeper starts first
        and ends last, because the control process needs it."""
        state = str(self.state)
        control = ChildConfig(
            name="control",
            argv=_python(
                "meshd.daemon", "--state", state, "--runtime", self.runtime,
                "--metrics", self.metrics, "--starts", str(self.start_limit),
                *(() if self.adopt else ("--no-adopt",)),
                *(() if self.filter_host else ("--no-filter",)),
                *(("--lease", self.lease) if self.lease else ()),
                *((f"--node-listen={self.node_listen}",) if self.node_listen else ()),
                *((f"--authority-file={self.authority_file}",) if self.authority_file else ()),
                *(("--allow-clear-text",) if self.allow_clear_text else ()),
                *_edge_arguments(self.proxy),
                *_api_arguments(self.api),
                *_ui_arguments(self.ui),
            ),
            env=self._acme_environment(),
            stop_seconds=CHILD_STOP_SECONDS,
            silence_seconds=CONTROL_SILENCE_SECONDS,
            upgrades=True,
        )  # fmt: skip
        keeper = ChildConfig(
            name="keeper",
            argv=_python("meshd.runtime.process.keeper", "--state", state),
            stop_seconds=CHILD_STOP_SECONDS,
            silence_seconds=KEEPER_SILENCE_SECONDS,
        )
        return SupervisorConfig(
            listen=self.listen,
            listeners=build_listeners(self.proxy, self.listen),
            workers=self.workers,
            state_dir=state,
            pid_file=str(pid_file(self.state)),
            children=(keeper, control) if self.runtime == "process" else (control,),
            access_log=self._access_log(),
            spans=build_span_config(self.proxy),
            record=self.record,
            peer=peer_config(self.state, self.peer_listen) if self.node_listen else None,
        )

    def _acme_environment(self) -> dict[str, str]:
        """The settings of automatic certificates for the control process."""
        acme = [each.model_dump() for each in list_acme(self.proxy, self.listen)]
        return {ACME_VARIABLE: json.dumps(acme)} if acme else {}

    def _access_log(self) -> LogConfig:
        """The default is a separate file, because standard output is the daemon's log."""
        settings = self.proxy.access_log
        path = settings.path or str(self.state / "access.log")
        return LogConfig(settings.mode, settings.format, path, settings.sample, settings.query)


def _edge_arguments(proxy: ProxySettings) -> tuple[str, ...]:
    """Return the control process's arguments for the settings that are part of the snapshot."""
    trusted = (f"--trusted-proxy={each}" for each in proxy.trusted_proxies)
    return (*trusted, *(("--via",) if proxy.via else ()))


def _api_arguments(api: TcpSettings | None) -> tuple[str, ...]:
    """Return the control process's arguments for the API's TCP address."""
    if api is None:
        return ()
    files = (
        ("--api-cert", api.certificate),
        ("--api-key", api.key),
        ("--api-client-ca", api.client_ca),
    )
    return (
        f"--api={api.address}",
        *(f"{option}={path}" for option, path in files if path),
        *(f"--api-host={name}" for name in api.names),
    )


def _ui_arguments(ui: PageSettings | None) -> tuple[str, ...]:
    """Return the control process's arguments for the web page."""
    if ui is None:
        return ()
    files = (("--ui-cert", ui.tcp.certificate), ("--ui-key", ui.tcp.key))
    return (
        f"--ui={ui.tcp.address}",
        *(f"{option}={path}" for option, path in files if path),
        *(f"--ui-host={name}" for name in ui.tcp.names),
        *(("--ui-strict",) if ui.strict else ()),
    )


_EDGE_OPTIONS: Final = ("--trusted-proxy=", "--via")


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """Run a module with our interpreter; -P: never import from the current directory."""
    return (sys.executable, "-P", "-m", module, *arguments)


def pid_file(state: Path) -> Path:
    """Return the file that the supervisor writes its process id to."""
    return state / presence.PID_FILE


def running_pid(state: Path) -> int | None:
    """Return the process id of the daemon of that state directory; None if none runs."""
    return presence.supervisor_pid(state)


def _config_file(state: Path) -> Path:
    return state / presence.CONFIG_FILE


def _stored_config(state: Path) -> SupervisorConfig | None:
    """Return the configuration that the daemon was started with; None if it cannot be read."""
    try:
        return msgspec.json.decode(_config_file(state).read_bytes(), type=SupervisorConfig)
    except (OSError, msgspec.MsgspecError):
        return None


def listen_addresses(state: Path) -> tuple[str, ...]:
    """Return the configured addresses of the running daemon's proxy; empty if not known."""
    config = _stored_config(state)
    return config.listen if config else ()


def metrics_address(state: Path) -> str:
    """Return the address of --metrics of the running daemon; empty if not known."""
    config = _stored_config(state)
    for child in config.children if config else ():
        if "--metrics" in child.argv:
            return child.argv[child.argv.index("--metrics") + 1]
    return ""


@dataclass(frozen=True, slots=True)
class TakeoverOptions:
    """How a daemon with the Docker runtime becomes one with the Swarm runtime.

    - `staying`: keys of the services that stay on the engine; None: the engine has nothing left.
    - `node_listen`, `peer_listen`, `allow_clear_text`: see `DaemonOptions`.
    """

    staying: tuple[str, ...] | None
    node_listen: str = ""
    peer_listen: str = ""
    allow_clear_text: bool = False


TAKE_OVER: Final = "--take-over-engine"
_STAYS: Final = "--stays="


def staying_services(state: Path) -> tuple[str, ...] | None:
    """Return the services that stay on the engine while a Swarm takes over from it; None if the
    daemon does not do that."""
    config = _stored_config(state)
    for child in config.children if config else ():
        if TAKE_OVER in child.argv:
            return tuple(
                each.removeprefix(_STAYS) for each in child.argv if each.startswith(_STAYS)
            )
    return None


def swarm_config(state: Path, options: TakeoverOptions) -> SupervisorConfig:
    """Return the configuration of the daemon that runs, with the Swarm runtime. Raises
    DaemonStartError."""
    config = _stored_config(state)
    if config is None:
        raise DaemonStartError(f"{_config_file(state)} cannot be read")
    return as_swarm(config, state, options)


def as_swarm(config: SupervisorConfig, state: Path, options: TakeoverOptions) -> SupervisorConfig:
    """Return a configuration with the Swarm runtime. Options that it has already are kept."""

    def change(argv: tuple[str, ...]) -> tuple[str, ...]:
        words = [each for each in argv if each != TAKE_OVER and not each.startswith(_STAYS)]
        if "--runtime" in words:
            words[words.index("--runtime") + 1] = "swarm"
        if options.node_listen and not any(each.startswith("--node-listen") for each in words):
            words.append(f"--node-listen={options.node_listen}")
        if options.allow_clear_text and "--allow-clear-text" not in words:
            words.append("--allow-clear-text")
        if options.staying is not None:
            words += [TAKE_OVER, *(f"{_STAYS}{key}" for key in options.staying)]
        return tuple(words)

    children = tuple(
        msgspec.structs.replace(child, argv=change(child.argv)) for child in config.children
    )
    peer = config.peer
    if peer is None and options.peer_listen:
        peer = peer_config(state, options.peer_listen)
    return msgspec.structs.replace(config, children=children, peer=peer)


def replace_config(state: Path, config: SupervisorConfig) -> bytes:
    """Have the daemon that runs continue with another configuration: the sockets stay open, the
    workers finish their requests, and the control process is replaced. Return the configuration
    before, for `restore_config`. Raises DaemonStartError."""
    return _replace_config(state, msgspec.json.format(msgspec.json.encode(config)))


def restore_config(state: Path, before: bytes) -> None:
    """Have the daemon continue with the configuration that `replace_config` returned."""
    _replace_config(state, before)


def _replace_config(state: Path, config: bytes) -> bytes:
    file, pid = _config_file(state), running_pid(state)
    if pid is None:
        raise DaemonStartError(f"no daemon runs in {state}")
    try:
        before = file.read_bytes()
        part = file.with_name(f".{file.name}.part")
        part.touch(mode=0o600)
        part.write_bytes(config)
        part.replace(file)
        os.kill(pid, signal.SIGUSR2)
    except OSError as error:
        raise DaemonStartError(f"{file}: {error}") from error
    return before


def has_api_settings(options: DaemonOptions) -> bool:
    """Whether the running daemon serves the API over TCP as these options say; True if not
    known."""
    config = _stored_config(options.state)
    if config is None:
        return True
    given = [each for child in config.children for each in child.argv if each.startswith("--api")]
    return given == list(_api_arguments(options.api))


def has_ui_settings(options: DaemonOptions) -> bool:
    """Whether the running daemon serves the web page as these options say; True if not known."""
    config = _stored_config(options.state)
    if config is None:
        return True
    given = [each for child in config.children for each in child.argv if each.startswith("--ui")]
    return given == list(_ui_arguments(options.ui))


def has_proxy_settings(options: DaemonOptions) -> bool:
    """Whether the running daemon was started with the same proxy settings; True if not known."""
    expected = options.config()
    config = _stored_config(options.state)
    if config is None:
        return True
    given = {
        each for child in config.children for each in child.argv if each.startswith(_EDGE_OPTIONS)
    }
    same = (config.access_log, config.spans, config.listeners, _environment(config)) == (
        expected.access_log,
        expected.spans,
        expected.listeners,
        _environment(expected),
    )
    return same and given == set(_edge_arguments(options.proxy))


def _environment(config: SupervisorConfig) -> list[dict[str, str]]:
    return [child.env for child in config.children]


def _log_file(state: Path) -> Path:
    return state / "daemon.log"


def prepare_state(state: Path) -> None:
    """Create the state directory, accessible to its owner only. Raises DaemonStartError."""
    if len(os.fsencode(state / "keeper.sock")) > MAX_SOCKET_PATH:
        raise DaemonStartError(
            f"state directory {state}: the path is too long for Unix sockets; use a shorter --state"
        )
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise _state_error(state, error) from error


def _state_error(state: Path, error: OSError) -> DaemonStartError:
    return DaemonStartError(
        f"state directory {state} cannot be used: {error.strerror}; use a different --state"
    )


@contextlib.asynccontextmanager
async def start_lock(state: Path, within: float = 2 * START_SECONDS) -> AsyncIterator[None]:
    """Hold a lock that lets one `meshd up` at a time look for a daemon and start one. A second
    `meshd up` waits up to `within` seconds and then finds the daemon running.

    Raises DaemonStartError.
    """
    try:
        descriptor = os.open(state / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _state_error(state, error) from error
    try:
        if not await _wait_until(lambda: _try_lock(descriptor), within):
            raise DaemonStartError(f"another `meshd up` is still starting a daemon in {state}")
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_addresses(options: DaemonOptions) -> None:
    """Check that every address can be bound, before anything is started.

    Raises DaemonStartError, naming the option.
    """
    listen = [("--listen", address) for address in options.listen]
    api = [("--api", options.api.address)] if options.api else []
    page = [("--ui", options.ui.tcp.address)] if options.ui and options.ui.strict else []
    # With a lease it is opened by the daemon that leads, which may be on this host.
    opens = options.node_listen and not options.lease
    nodes = [("--node-listen", options.node_listen)] if opens else []
    for option, address in [*listen, ("--metrics", options.metrics), *api, *page, *nodes]:
        check_address(option, address)


def check_address(option: str, address: str) -> None:
    """Check that an address can be bound. Raises DaemonStartError, naming the option."""
    try:
        parsed = addresses.parse(address)
        if not parsed.path:
            family, where = addresses.resolve(parsed)
            socket.create_server(where, family=family).close()
    except (OSError, addresses.BadAddress) as error:
        raise DaemonStartError(
            f"cannot listen on {address}: {_reason(error)}; use a different address for {option}"
        ) from error


def _reason(error: OSError | addresses.BadAddress) -> str:
    """Return the text of an error within a sentence. asyncio and socket append the address to
    `strerror`, which the message names already."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


@dataclass(slots=True)
class DaemonProcess:
    """A daemon that this command started. `log_start`: offset in its log file at the start."""

    process: subprocess.Popen[bytes]
    state: Path
    log_start: int

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """Return the last lines of what it has logged since the start."""
        with _log_file(self.state).open("rb") as log:
            log.seek(self.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal; no effect if it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def has_ended(self, within: float) -> bool:
        """Whether it has ended, after waiting for that up to `within` seconds."""
        return await _wait_until(lambda: self.process.poll() is not None, within)


def _continue_takeover(options: DaemonOptions) -> SupervisorConfig:
    """Return the configuration of a daemon that starts. If the one before moved an application to a
    Swarm, what stays on the engine stays there: a second container would use the same data. Raises
    DaemonStartError."""
    config, staying = options.config(), staying_services(options.state)
    try:
        if staying is None or not read_stored_projects(options.state):
            return config
    except sqlite3.Error as error:
        raise DaemonStartError(f"the state in {options.state} cannot be read: {error}") from error
    if options.runtime != "swarm":
        raise DaemonStartError(
            "the application of this state directory moves to a Swarm, and parts of it run there; "
            "use --runtime swarm"
        )
    return as_swarm(config, options.state, TakeoverOptions(staying))


def spawn(options: DaemonOptions) -> DaemonProcess:
    """Start a daemon without waiting until it is ready. Raises DaemonStartError."""
    check_addresses(options)
    log_path = _log_file(options.state)
    try:
        config = _config_file(options.state)
        settings = _continue_takeover(options)
        config.touch(mode=0o600)  # it may hold the key of an external account
        config.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
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
        raise DaemonStartError(f"cannot start the daemon: {error}") from error
    return DaemonProcess(process, options.state, start)


async def wait_ready(daemon: DaemonProcess, seconds: float = START_SECONDS) -> None:
    """Wait until the daemon answers. If it does not, end it and raise DaemonStartError with the
    last lines of its log."""
    answer = asyncio.ensure_future(wait_for_daemon(daemon.state / presence.API_SOCKET, seconds))
    end = asyncio.ensure_future(daemon.has_ended(seconds))
    try:
        await asyncio.wait([answer, end], return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.result() is not None:
            return
    finally:
        for task in (answer, end):
            task.cancel()
        await asyncio.wait([answer, end])
    code = daemon.process.poll()
    if code is None:
        daemon.signal(signal.SIGTERM)
        if not await daemon.has_ended(TERM_SECONDS):
            daemon.signal(signal.SIGKILL)
    failure = (
        f"did not answer within {output.format_seconds(seconds)}"
        if code is None
        else f"exited with code {code}"
    )
    raise DaemonStartError(f"the daemon {failure}; the end of its log:\n{daemon.log_tail()}")


async def find_running(state: Path) -> Status | None:
    """Return the status of the daemon of that state directory; None if none runs. One that is just
    starting is waited for until it answers, and one that is ending until it has ended.

    Raises DaemonStartError.
    """
    socket_path, pid = state / presence.API_SOCKET, running_pid(state)
    if pid is None:
        return await wait_for_daemon(socket_path, 0.0)
    end = asyncio.get_running_loop().time() + START_SECONDS
    while running_pid(state) == pid:
        status = await wait_for_daemon(socket_path, POLL_SECONDS)
        if status is not None and status.ending:
            output.print_error(f"the daemon in {state} is ending; waiting until it has ended")
            if await _wait_until(lambda: running_pid(state) != pid, END_SECONDS):
                return None
            raise DaemonStartError(
                f"the daemon in {state} (process {pid}) has not ended within "
                f"{output.format_seconds(END_SECONDS)}; see {_log_file(state)}"
            )
        if status is not None:
            return status
        if asyncio.get_running_loop().time() >= end:
            raise DaemonStartError(
                f"a daemon runs in {state} but does not answer; see {_log_file(state)}"
            )
    return None


async def wait_gone(pid: int, within: float = END_SECONDS) -> bool:
    """Whether a daemon that another command started has ended, after waiting for that up to
    `within` seconds."""
    return await _wait_until(lambda: not Path(f"/proc/{pid}").exists(), within)


async def _wait_until(condition: Callable[[], bool], within: float) -> bool:
    end = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
