"""Join a mesh and become the proxy of this node. Used by `meshd node join`.

The command becomes the supervisor of the proxy (`python -m proxy`), whose child process
`meshd.node_proxy` connects to the control process.
"""

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from meshd.cli.daemon_process import prepare_state
from meshd.model.node_proxy import NODE_PORT
from meshd.node_proxy import enrollment
from meshd.node_proxy.enrollment import JoinFailed
from meshd.node_proxy.identity import is_node_name
from meshd.node_proxy.join_token import BadToken, JoinToken, read_text
from meshd.store import presence
from proxy.ipc import address as addresses
from proxy.ipc.config import ChildConfig, SupervisorConfig
from proxy.ipc.signals import hold_signals
from proxy.peer.files import peer_config

LOCK_FILE: Final = "node.lock"
"""Held as long as the proxy of the node runs, so that one runs for each state directory."""
AGENT_SILENCE_SECONDS: Final = 10.0
"""Seconds without a sign of life after which the agent is replaced; as for a worker."""
AGENT_STOP_SECONDS: Final = 2.0
"""Seconds between SIGTERM and SIGKILL for the agent, which has nothing to finish."""
MAX_TOKEN: Final = 16 * 1024
"""Characters of a file with a token that are read; a token has about 1100."""


class NodeStartError(Exception):
    """The proxy cannot be started; the text says why and what to do."""


def complete_address(text: str) -> str:
    """Return the address of a control process with its port. Raises NodeStartError."""
    if text and ":" not in text:
        text = f"{text}:{NODE_PORT}"
    try:
        parsed = addresses.parse(text)
    except addresses.BadAddress as error:
        raise NodeStartError(str(error)) from error
    if parsed.path or not parsed.host or not parsed.port:
        raise NodeStartError(f"{text!r} is not HOST or HOST:PORT")
    return str(parsed)


def read_token(file: str) -> JoinToken:
    """Return the token in a file; `-` reads standard input. Raises NodeStartError."""
    try:
        if file == "-":
            return read_text(sys.stdin.read(MAX_TOKEN))
        with open(file) as opened:
            return read_text(opened.read(MAX_TOKEN))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise NodeStartError(f"--token-file {file} cannot be read: {reason}") from error
    except BadToken as error:
        raise NodeStartError(f"--token-file {file}: {error}") from error


def hold_state(state: Path) -> int:
    """Return the descriptor of a lock that no other proxy of a node has for this directory. Raises
    NodeStartError, DaemonStartError."""
    prepare_state(state)
    running = presence.owner_pid(state)
    if running is not None:
        raise NodeStartError(
            f"a daemon runs in {state} (process {running}); use a different --state"
        )
    descriptor = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise NodeStartError(f"the proxy of a node runs in {state} already") from error
    return descriptor


def ensure_joined(state: Path, managers: Sequence[str], token_file: str, name: str) -> str:
    """Join the mesh unless this node has joined already. Return the name under which it joined now;
    empty if it joined before. A token that is still open lets a node that was removed join again.
    Raises NodeStartError, JoinFailed."""
    known = enrollment.load_identity(state)
    if known is not None and known.validity()[1] > time.time():
        return _rejoin(state, managers, token_file, known.peer_name() or name)
    if not token_file and known is None:
        raise NodeStartError(
            f"this node has not joined (see {state}); give --token-file with a token from `meshd "
            "node token`"
        )
    if not token_file:
        node = (known.peer_name() if known is not None else "") or "NAME"
        raise NodeStartError(
            f"this node was away until its certificate expired (see {state}); run `meshd node "
            f"remove {node}` on the host of meshd, then give --token-file with a token from `meshd "
            "node token`"
        )
    if not is_node_name(name):
        raise NodeStartError(f"{name!r} is not a valid name of a node; give --name")
    _join(state, managers, read_token(token_file), name)
    return name


def _rejoin(state: Path, managers: Sequence[str], token_file: str, name: str) -> str:
    """Join again under the name that this node has, if it was removed: then the mesh accepts a
    token for that name. Return the name if it joined. A token that cannot be used, or is gone, is
    ignored: a service may give its first one at each start."""
    if not token_file:
        return ""
    try:
        token = read_token(token_file)
        if not enrollment.is_open(token):
            return ""
        _join(state, managers, token, name)
    except (NodeStartError, JoinFailed):
        return ""
    return name


def _join(state: Path, managers: Sequence[str], token: JoinToken, name: str) -> None:
    """Join at the first control process that accepts the token. Raises JoinFailed."""
    failures = []
    for manager in managers:
        try:
            asyncio.run(enrollment.join(manager, token, name, state))
        except JoinFailed as error:
            failures.append(str(error))
        else:
            return
    raise JoinFailed("; ".join(failures))


def supervisor_config(
    state: Path,
    managers: Sequence[str],
    listen: Sequence[str],
    workers: int,
    peer_listen: str,
) -> SupervisorConfig:
    """Return the configuration of the supervisor and its agent. `peer_listen`: where the proxies of
    other nodes reach this one."""
    agent = ChildConfig(
        name="agent",
        argv=(
            sys.executable, "-P", "-m", "meshd.node_proxy", "--state", str(state), *managers,
        ),
        stop_seconds=AGENT_STOP_SECONDS,
        silence_seconds=AGENT_SILENCE_SECONDS,
        upgrades=True,
    )  # fmt: skip
    return SupervisorConfig(
        listen=tuple(listen),
        workers=workers,
        state_dir=str(state),
        children=(agent,),
        announce=True,
        peer=peer_config(state, peer_listen),
    )


def become_supervisor(config: SupervisorConfig, lock: int) -> NoReturn:
    """Replace this process by the supervisor, which keeps the lock. The configuration is passed in
    an anonymous memory file."""
    os.set_inheritable(lock, True)
    memory = os.memfd_create("meshd-node", 0)
    os.write(memory, msgspec.json.encode(config))
    argv = [sys.executable, "-P", "-m", "proxy", "--config", f"/dev/fd/{memory}"]
    hold_signals()  # until the supervisor has its handlers
    os.execv(sys.executable, argv)  # noqa: S606 - our own interpreter
