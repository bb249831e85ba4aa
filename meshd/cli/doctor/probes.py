"""Look at this machine for `meshd doctor`: files, sockets, the engine and the daemon.

`meshd.cli.commands.doctor` calls `collect`; `checks` decides about the result. Nothing is changed.
"""

import asyncio
import ctypes
import importlib.util
import os
import resource
import shutil
import socket
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from meshd.api.client import ApiFailure, NoDaemon
from meshd.cli.doctor.checks import MachineFacts
from meshd.cli.session import connect
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.engine import Engine

PROXY_PORT: Final = 8080
"""The port that `meshd up` listens on by default."""
_TIME_ERROR: Final = 5
"""State of the clock in `adjtimex` that is not synchronized (TIME_ERROR)."""
_TIMEX_BYTES: Final = 256
"""Size of `struct timex` or more."""
_PATIENCE: Final = 10.0
"""Seconds for the engine; a healthy one answers in milliseconds."""


async def collect(state: Path, runtime: str) -> MachineFacts:
    """Return the facts about this machine, for a runtime (empty: that of the daemon, else docker),
    and about the daemon with this state directory."""
    found: dict[str, Any] = {"state": str(state), "own": _own_version()}
    found |= await _ask_daemon(state)
    found["runtime"] = runtime or found.get("runtime") or "docker"
    if found["runtime"] == "docker":
        found |= await _ask_engine()
    found |= _disk(state)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found |= {"files": soft, "file_limit": hard if hard != resource.RLIM_INFINITY else 1 << 30}
    if not found.get("daemon"):
        found["busy_ports"] = tuple(_busy_ports((PROXY_PORT,)))
    return MachineFacts(**found, **_kernel(), **_installation())


def _own_version() -> str:
    try:
        return metadata.version("meshd")
    except metadata.PackageNotFoundError:
        return ""


async def _ask_daemon(state: Path) -> dict[str, Any]:
    try:
        async with connect(state) as client:
            status = await client.status()
    except (NoDaemon, ApiFailure) as error:
        return {"daemon_problem": str(error)}
    return {
        "daemon": status.version,
        "runtime": status.runtime,
        "runtime_state": status.runtime_state,
    }


async def _ask_engine() -> dict[str, Any]:
    engine = Engine()
    try:
        async with asyncio.timeout(_PATIENCE):
            await engine.open()
            async with engine.request() as docker:
                asked = time.time()
                info = await docker.system.info()
        version = str(info.get("ServerVersion", ""))
        found: dict[str, Any] = {"engine": version, "engine_api": engine.newest_api}
        clock = _parse_time(str(info.get("SystemTime", "")))
        if clock is not None:
            found["engine_clock"] = clock - (asked + time.time()) / 2
    except TimeoutError:
        return {"engine_problem": f"the Docker Engine does not answer within {_PATIENCE:g} s"}
    except (RuntimeUnavailable, RuntimeFailure) as error:
        return {"engine_problem": str(error)}
    else:
        return found
    finally:
        await engine.close()


def _parse_time(text: str) -> float | None:
    """Return the Unix time of a time with up to nanoseconds; None if it cannot be read."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _disk(state: Path) -> dict[str, Any]:
    """Return free space and rights where the state is, or will be."""
    place = state
    while not place.exists() and place != place.parent:
        place = place.parent
    problem = "" if os.access(place, os.W_OK | os.X_OK) else "it cannot be written by this user"
    try:
        space = shutil.disk_usage(place).free
        inodes = os.statvfs(place)
    except OSError as error:
        return {"state_problem": error.strerror or str(error)}
    share = inodes.f_favail / inodes.f_files if inodes.f_files else None
    return {"state_problem": problem, "space": space, "inodes": share}


def _busy_ports(ports: tuple[int, ...]) -> list[tuple[int, str]]:
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                found.append((port, f"cannot be used: {error.strerror}"))
    return found


def _kernel() -> dict[str, Any]:
    ports = _read("/proc/sys/net/ipv4/ip_local_port_range").split()
    backlog = _read("/proc/sys/net/core/somaxconn")
    forwarding = _read("/proc/sys/net/ipv4/ip_forward")
    memory = [line for line in _read("/proc/meminfo").splitlines() if "MemAvailable" in line]
    return {
        "local_ports": int(ports[1]) - int(ports[0]) + 1 if len(ports) == 2 else None,
        "backlog": int(backlog) if backlog.isdecimal() else None,
        "forwarding": forwarding == "1" if forwarding else None,
        "memory": int(memory[0].split()[1]) * 1024 if memory else None,
        "synchronized": _is_synchronized(),
    }


def _read(path: str) -> str:
    """Return the content of a file of the kernel; empty if it does not exist."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _is_synchronized() -> bool | None:
    """Return whether the kernel says that its clock is synchronized; None if it does not say."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        state = int(library.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _installation() -> dict[str, Any]:
    request_path = importlib.util.find_spec("proxy.request.fast_path")
    return {
        "root": os.geteuid() == 0,
        "iptables": shutil.which("iptables") is not None or _is_in_sbin("iptables"),
        "http2": importlib.util.find_spec("ngh2") is not None,
        "compiled": request_path is not None and not str(request_path.origin).endswith(".py"),
    }


def _is_in_sbin(name: str) -> bool:
    return any(Path(folder, name).exists() for folder in ("/usr/sbin", "/sbin"))
