"""Active probes: one HTTP request or TCP connection at a time to every running replica.

The reconciler sets the targets in every pass and reads the results; `meshd proxy` does the same for
its fixed endpoints. A change of a result wakes the caller. A target that has not answered yet is
probed quickly (every 50 ms at first), so that a replica gets traffic soon after it is up.
"""

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from meshd.discovery.listening import find_hint
from meshd.discovery.peer_probe import connect_through
from meshd.model.peers import PeerHop
from meshd.model.replica import DEFAULT_PATH, NO_ANSWER, REFUSED, UNKNOWN_PATH, ProbeResult
from meshd.spec.model import HealthCheck
from proxy import http2
from proxy.transport.connect import connect_socket, send_first
from proxy.transport.proxy_header import build_header
from proxy.transport.upstream_tls import HTTP1_ALPN, TlsFiles, describe_error, get_client
from proxy.wire.snapshot import UpstreamTls

FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a target that has not answered yet."""
PAUSE_GROWTH: Final = 1.25
"""Factor by which this pause grows with each probe, up to the health check's interval."""
MAX_CONCURRENT: Final = 64
"""Probes at the same time, so that a slow network does not use up sockets."""
MAX_RATE: Final = 400
"""Probes per second of replicas that are up, all together. With more replicas each is probed less
often, so that thousands of them leave this process time for its other work."""
HINT_AFTER: Final = 3.0
"""Seconds of refused connections until the reason is looked for; most programs listen by then."""
JITTER_LOW, JITTER_SPAN = 0.9, 0.2
"""The interval is multiplied by 0.9 to 1.1 at random, so that probes do not run in step."""
MAX_HEAD: Final = 8192
"""Bytes of a response that are buffered; only its first line is read."""
OK_STATUS, FIRST_ERROR_STATUS = 200, 400
"""HTTP statuses from the first up to, not including, the second are good."""
NOT_FOUND: Final = 404
"""Status of a program that has no such path."""
_GRPC_ALPN: Final = ("h2",)
"""The protocol that gRPC is spoken in."""
GOOD: Final = "ok"
_OWN_LINES: Final = ("User-Agent: meshd-probe", "Accept: */*")
"""Fields that a probe sends unless the health check sets them."""


class ProbeOpening(msgspec.Struct, frozen=True):
    """What connections begin with, as those of requests do.

    - `tls`: how they are encrypted; None for connections in the clear.
    - `proxy_protocol`: version of their PROXY header; empty for none.
    - `peer`: the proxy of another node that they go through; None: they go to the address.
    """

    tls: UpstreamTls | None = None
    proxy_protocol: str = ""
    peer: PeerHop | None = None


PLAIN: Final = ProbeOpening()


class ProbeTarget(msgspec.Struct, frozen=True):
    """An address to probe, with its checks.

    - `host`, `port`; or `path`, a Unix socket, instead.
    - `health`: the health check.
    - `incarnation`: distinguishes one start of a replica from the next.
    - `proven`: it served before this process began, so the first probe need not hurry.
    - `alternatives`: more addresses of the same host; one that answers is enough.
    - `opening`: what connections begin with.
    - `pid`: the first process of its container; 0: unknown.
    """

    host: str
    port: int
    health: HealthCheck
    incarnation: tuple[str, float]
    proven: bool = False
    path: str = ""
    alternatives: tuple[str, ...] = ()
    opening: ProbeOpening = PLAIN
    pid: int = 0


def _is_same(old: ProbeTarget, new: ProbeTarget | None) -> bool:
    return new is not None and msgspec.structs.replace(new, proven=old.proven) == old


class Prober:
    """Probes every target in a separate task and keeps the last result of each.

    - `on_change`: called when a result changed.
    - `probe_once`: probes one address once; by default `probe`.
    - `clock`: Unix time.
    - `jitter`: random numbers from 0 to 1.
    - `hint`: returns where a container listens instead, see `find_hint`.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        probe_once: "ProbeFunction | None" = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        hint: Callable[[str, int, int], str] = find_hint,
    ) -> None:
        self._hint = hint
        self.results: dict[str, ProbeResult] = {}
        self._probe_once: ProbeFunction = probe_once or probe
        self._on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._targets: dict[str, ProbeTarget] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    def set_targets(self, targets: Mapping[str, ProbeTarget]) -> None:
        """Probe exactly these from now on. Probing of a changed target starts over."""
        for name in [n for n, t in self._targets.items() if not _is_same(t, targets.get(n))]:
            task = self._tasks.pop(name)
            task.cancel()
            old, new = self._targets.pop(name), targets.get(name)
            if new is None or new.incarnation != old.incarnation:
                self.results.pop(name, None)
        for name, target in targets.items():
            if name not in self._targets:
                self._targets[name] = target
                self._tasks[name] = asyncio.create_task(self._probe_repeatedly(name, target))

    def reset(self, name: str) -> None:
        """Forget the result of one target."""
        self.results.pop(name, None)

    async def close(self) -> None:
        """Stop all probes."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._targets.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe_repeatedly(self, name: str, target: ProbeTarget) -> None:
        health, pause = target.health, FIRST_PAUSE
        if health.type == "none":
            self._record(name, None)
            return
        if target.proven:
            await asyncio.sleep(self._jitter() * health.interval)
        host, started = target.host, self._clock()
        readiness = health.model_copy(update={"type": "http", "path": health.ready})
        while True:
            unready = None
            async with self._slots:
                problem, host = await self._probe_any(target, health, host)
                if problem is None and health.ready:
                    unready, host = await self._probe_any(target, readiness, host)
            if problem == REFUSED and target.pid and self._clock() > started + HINT_AFTER:
                problem = self._explain_refusal(name, target)
            self._record(name, problem, unready, host if target.alternatives else "")
            if target.proven or self.results[name].first_good:
                interval = max(health.interval, len(self._targets) / MAX_RATE)
                await asyncio.sleep(interval * (JITTER_LOW + JITTER_SPAN * self._jitter()))
            else:
                await asyncio.sleep(pause)
                pause = min(pause * PAUSE_GROWTH, health.interval)

    def _explain_refusal(self, name: str, target: ProbeTarget) -> str:
        """Return the text of a refused connection, with the reason if it never was accepted."""
        known = self.results.get(name)
        if known is not None and known.first_good:
            return REFUSED
        hint = self._hint(target.host, target.port, target.pid)
        return f"{REFUSED}: {hint}" if hint else REFUSED

    async def _probe_any(
        self, target: ProbeTarget, health: HealthCheck, first: str
    ) -> tuple[str | None, str]:
        """Probe the addresses of a target until one answers well, the one that was `first` last
        time before the others. Return the last problem and that address."""
        probe_once, port, path = self._probe_once, target.port, target.path
        opening = target.opening
        problem = await probe_once(first, port, health, path, opening)
        if problem is None:
            return None, first
        for host in (target.host, *target.alternatives):
            if host != first:
                problem = await probe_once(host, port, health, path, opening)
                if problem is None:
                    return None, host
        return problem, first

    def _record(
        self, name: str, problem: str | None, unready: str | None = None, host: str = ""
    ) -> None:
        before = self.results.get(name, ProbeResult())
        first = before.first_good
        if problem is not None:
            after = ProbeResult(before.bad + 1, first, problem, before.unready, before.host)
        elif unready is not None:
            after = ProbeResult(0, first, unready, unready, host)
        else:
            after = ProbeResult(0, first or self._clock(), GOOD, host=host)
        if after != before:
            self.results[name] = after
            self._on_change()


async def probe(
    host: str, port: int, health: HealthCheck, path: str = "", opening: ProbeOpening = PLAIN
) -> str | None:
    """Probe once, over the Unix socket at `path` if it is set. Return the problem, for people; None
    if the answer is good."""
    if opening.peer is not None and not opening.peer.port:
        return f"node {opening.peer.node} has no proxy: run `meshd node join` there"
    try:
        async with asyncio.timeout(health.timeout):
            alpn = _GRPC_ALPN if health.type == "grpc" else HTTP1_ALPN
            reader, writer = await _connect(host, port, path, opening, alpn)
            try:
                if health.type == "tcp":
                    return None
                if health.type == "grpc":
                    # It needs the codec of HTTP/2, which need not be installed.
                    if not http2.is_available():
                        return "HTTP/2 is not available: the package ngh2 is missing"
                    from meshd.discovery.grpc_probe import check_health

                    return await check_health(
                        reader,
                        writer,
                        scheme="http" if opening.tls is None else "https",
                        authority=_name_host(host, port, path, health),
                        service=health.service,
                    )
                writer.write(_build_request(host, port, path, health))
                line = await reader.readline()
            finally:
                writer.transport.abort()
        return _check_answer(line, health)
    except TimeoutError:
        return f"{NO_ANSWER} within {health.timeout:g} s"
    except TlsFiles as error:
        return str(error)
    except ssl.SSLError as error:
        name = opening.tls.server_name if opening.tls is not None else host
        return f"no TLS connection: {describe_error(error, name)}"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    except ValueError as error:
        return str(error)


async def _connect(
    host: str, port: int, path: str, opening: ProbeOpening, alpn: tuple[str, ...]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    options: dict[str, Any] = {}
    tls = opening.tls
    if tls is not None:
        options = {"ssl": get_client(tls, alpn).context(), "server_hostname": tls.server_name}
    if opening.proxy_protocol or opening.peer is not None:
        if opening.peer is not None:
            sock = await connect_through(host, port, opening.peer)
        else:
            family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family)
            await connect_socket(asyncio.get_running_loop(), sock, path or (host, port))
        if opening.proxy_protocol:
            send_first(sock, build_header(opening.proxy_protocol))
        return await asyncio.open_connection(sock=sock, limit=MAX_HEAD, **options)
    if path:
        return await asyncio.open_unix_connection(path, limit=MAX_HEAD, **options)
    return await asyncio.open_connection(host, port, limit=MAX_HEAD, **options)


def _name_host(host: str, port: int, path: str, health: HealthCheck) -> str:
    """Return the host that a probe names."""
    name = "localhost" if path else f"[{host}]" if ":" in host else host
    return health.host or f"{name}:{port}"


def _build_request(host: str, port: int, path: str, health: HealthCheck) -> bytes:
    """Return the request of an HTTP probe."""
    lines = [f"GET {health.path} HTTP/1.1", f"Host: {_name_host(host, port, path, health)}"]
    own = {each.lower() for each in health.headers}
    lines += [line for line in _OWN_LINES if line.partition(":")[0].lower() not in own]
    lines += [f"{each}: {value}" for each, value in health.headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def _check_answer(line: bytes, health: HealthCheck) -> str | None:
    """Return what is wrong with an answer by its first line; None for a status of 200 to 399. The
    body is not read."""
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return "closed the connection without an answer" if not line else "did not answer in HTTP"
    status = int(words[1])
    if OK_STATUS <= status < FIRST_ERROR_STATUS:
        return None
    if status == NOT_FOUND and health.path == DEFAULT_PATH:
        return UNKNOWN_PATH
    return f"GET {health.path} answered {status}"


ProbeFunction = Callable[[str, int, HealthCheck, str, ProbeOpening], Awaitable[str | None]]
"""Probes one address once, as `probe` does."""
