"""Findings about a machine by the facts about it, each with advice. Pure.

`probes` collects the `MachineFacts`, `meshd.cli.commands.doctor` prints the `Finding`s.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from meshd.cli.output import format_bytes

FEW_FILES: Final = 4096
"""Open files of a process below which a worker refuses clients early: it needs two for each
request in flight."""
USUAL_FILES: Final = 65536
"""Open files that are enough for 30,000 requests in flight."""
LITTLE_SPACE: Final = 1 << 30
"""Bytes of free disk space below which images and logs soon fill the disk."""
NO_SPACE: Final = 100 << 20
"""Bytes of free disk space below which the state may not be written."""
FEW_INODES: Final = 0.05
"""Share of free inodes below which files soon cannot be made."""
SHORT_BACKLOG: Final = 512
"""`net.core.somaxconn` below which bursts of connections are refused; Linux has 4096 since 5.4."""
FEW_PORTS: Final = 20_000
"""Local ports below which many short connections to one endpoint run out of ports; the default of
Linux is 28,232."""
CLOCK_OFF: Final = 1.0
"""Seconds between the clock of the engine and this one above which times in logs and events do not
fit together."""
OLD_ENGINE: Final = (1, 41)
"""Version of the engine's API: that of Docker 20.10, the oldest engine that is tested."""


class Level(Enum):
    """How bad a finding is."""

    GOOD = "ok"
    WARN = "warning"
    BAD = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: the check, its level, the fact, and advice (empty: none needed)."""

    name: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """MachineFacts about the machine; None or empty: not known, or it does not apply.

    - `engine`: version of the container engine; `engine_api`: that of its API.
    - `engine_problem`: why the engine cannot be used.
    - `engine_clock`: seconds by which its clock is ahead of ours.
    - `daemon`: version of the daemon that answers; `runtime_state`: state of its runtime.
    - `own`: our version.
    - `daemon_problem`: why no daemon answers.
    - `busy_ports`: ports of the proxy's defaults that another program has, with the reason.
    - `files`, `file_limit`: soft and hard limit of open files.
    - `space`, `inodes`: free bytes, and free share of inodes, where the state is; `state`: where.
    - `state_problem`: why the state directory cannot be written.
    - `backlog`, `local_ports`: net.core.somaxconn, and the number of local ports.
    - `forwarding`: whether net.ipv4.ip_forward is on.
    - `synchronized`: whether the clock is synchronized.
    - `iptables`: whether iptables can be run; `root`: whether we are root.
    - `http2`: whether the codec of HTTP/2 is installed; `compiled`: whether the request path is
      compiled.
    - `memory`: available bytes of memory.
    """

    runtime: str = "docker"
    engine: str = ""
    engine_api: tuple[int, ...] = ()
    engine_problem: str = ""
    engine_clock: float | None = None
    daemon: str = ""
    own: str = ""
    runtime_state: str = "ok"
    daemon_problem: str = ""
    busy_ports: tuple[tuple[int, str], ...] = ()
    files: int = 0
    file_limit: int = 0
    space: int | None = None
    inodes: float | None = None
    state: str = ""
    state_problem: str = ""
    backlog: int | None = None
    local_ports: int | None = None
    forwarding: bool | None = None
    synchronized: bool | None = None
    iptables: bool = True
    root: bool = True
    http2: bool = True
    compiled: bool = True
    memory: int | None = None


def diagnose(facts: MachineFacts) -> list[Finding]:
    """Return the findings, in the order in which a person would check."""
    return [
        *_engine(facts),
        _daemon(facts),
        *_ports(facts),
        _files(facts),
        *_disk(facts),
        *_clock(facts),
        *_kernel(facts),
        *_installation(facts),
    ]


def _engine(facts: MachineFacts) -> Iterator[Finding]:
    if facts.runtime != "docker":
        yield Finding("engine", Level.GOOD, "not needed: replicas are local processes")
        return
    if facts.engine_problem:
        yield Finding(
            "engine",
            Level.BAD,
            facts.engine_problem,
            "start it (systemctl start docker), or add yourself to the group docker and log in "
            "again; without an engine use `meshd up --runtime process`",
        )
        return
    text = f"Docker Engine {facts.engine}"
    if facts.engine_api and facts.engine_api < OLD_ENGINE:
        yield Finding("engine", Level.WARN, text, "upgrade it: 20.10 is the oldest that is tested")
    else:
        yield Finding("engine", Level.GOOD, text)


def _daemon(facts: MachineFacts) -> Finding:
    if not facts.daemon:
        return Finding(
            "daemon",
            Level.WARN,
            facts.daemon_problem or "no daemon runs",
            "start it with `meshd up`, or name its directory with --state",
        )
    if facts.runtime_state != "ok":
        return Finding(
            "daemon",
            Level.BAD,
            f"its runtime {facts.runtime_state}",
            "see the engine, and daemon.log in the state directory",
        )
    if facts.own and facts.daemon != facts.own:
        return Finding(
            "daemon",
            Level.WARN,
            f"version {facts.daemon}, this command has {facts.own}",
            "run `meshd up` again with the new version; no request is lost",
        )
    return Finding("daemon", Level.GOOD, f"version {facts.daemon} answers")


def _ports(facts: MachineFacts) -> Iterator[Finding]:
    if not facts.busy_ports:
        yield Finding("ports", Level.GOOD, "those of the proxy are free, or the daemon has them")
    for port, reason in facts.busy_ports:
        yield Finding(
            "ports",
            Level.WARN,
            f"port {port} {reason}",
            f"find its owner with `ss -ltnp 'sport = :{port}'`, or choose another port with "
            "--listen",
        )


def _files(facts: MachineFacts) -> Finding:
    text = f"{facts.files} open files for each process, at most {facts.file_limit}"
    raise_it = "raise it: LimitNOFILE=65536 in the systemd unit, or `ulimit -n 65536` before meshd"
    if facts.file_limit < FEW_FILES:
        return Finding("file limit", Level.BAD, text, raise_it)
    if facts.file_limit < USUAL_FILES:
        return Finding("file limit", Level.WARN, text, raise_it)
    return Finding("file limit", Level.GOOD, text)


def _disk(facts: MachineFacts) -> Iterator[Finding]:
    if facts.state_problem:
        yield Finding(
            "state",
            Level.BAD,
            f"{facts.state}: {facts.state_problem}",
            "change its owner, or choose another directory with --state",
        )
    if facts.space is not None:
        text = f"{format_bytes(facts.space)} free for {facts.state}"
        advice = "remove old images (`docker image prune`) and logs, or enlarge the disk"
        if facts.space < NO_SPACE:
            yield Finding("disk", Level.BAD, text, advice)
        elif facts.space < LITTLE_SPACE:
            yield Finding("disk", Level.WARN, text, advice)
        else:
            yield Finding("disk", Level.GOOD, text)
    if facts.inodes is not None and facts.inodes < FEW_INODES:
        yield Finding(
            "disk",
            Level.WARN,
            f"{facts.inodes:.0%} of the inodes are free",
            "remove directories with many small files",
        )


def _clock(facts: MachineFacts) -> Iterator[Finding]:
    if facts.engine_clock is not None and abs(facts.engine_clock) > CLOCK_OFF:
        side = "ahead of" if facts.engine_clock > 0 else "behind"
        yield Finding(
            "clock",
            Level.WARN,
            f"the engine's clock is {abs(facts.engine_clock):.1f} s {side} this one",
            "synchronize both clocks (systemctl enable --now systemd-timesyncd)",
        )
    elif facts.synchronized is False:
        yield Finding(
            "clock",
            Level.WARN,
            "it is not synchronized",
            "enable synchronization (systemctl enable --now systemd-timesyncd); certificates and "
            "schedules depend on it",
        )
    else:
        yield Finding("clock", Level.GOOD, "in order")


def _kernel(facts: MachineFacts) -> Iterator[Finding]:
    good = True
    if facts.backlog is not None and facts.backlog < SHORT_BACKLOG:
        good = False
        yield Finding(
            "kernel",
            Level.WARN,
            f"net.core.somaxconn is {facts.backlog}",
            "sysctl -w net.core.somaxconn=4096, else bursts of connections are refused",
        )
    if facts.local_ports is not None and facts.local_ports < FEW_PORTS:
        good = False
        yield Finding(
            "kernel",
            Level.WARN,
            f"{facts.local_ports} local ports",
            'sysctl -w net.ipv4.ip_local_port_range="15000 60999"',
        )
    if facts.forwarding is False and facts.runtime == "docker":
        good = False
        yield Finding(
            "kernel",
            Level.BAD,
            "net.ipv4.ip_forward is 0",
            "sysctl -w net.ipv4.ip_forward=1, else containers reach nothing outside",
        )
    if good:
        yield Finding("kernel", Level.GOOD, "settings are in order")


def _installation(facts: MachineFacts) -> Iterator[Finding]:
    if facts.runtime == "docker" and not facts.root:
        yield Finding(
            "rights",
            Level.WARN,
            "not root: services have no virtual addresses, and containers are not filtered",
            "run meshd as root for names with any port, see docs/compose.md",
        )
    elif facts.runtime == "docker" and not facts.iptables:
        yield Finding(
            "rights",
            Level.WARN,
            "iptables is not installed: services have no virtual addresses",
            "install the package iptables",
        )
    if not facts.http2:
        yield Finding(
            "http2", Level.WARN, "the package ngh2 is missing: HTTP/1.1 only", "pip install ngh2"
        )
    if not facts.compiled:
        yield Finding(
            "speed",
            Level.WARN,
            "the request path is plain Python, and not compiled",
            "install a C compiler and the headers of Python, then install meshd again",
        )
    if facts.memory is not None and facts.memory < NO_SPACE:
        yield Finding(
            "memory",
            Level.WARN,
            f"{format_bytes(facts.memory)} available",
            "stop other programs, or lower the limits of services",
        )
