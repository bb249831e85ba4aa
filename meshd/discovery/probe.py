"""Active probes: one HTTP request or TCP connection at a time to every running replica.

Level-triggered: the caller says which targets there are, whenever it likes, and reads the
results; a wake tells that one of them changed its meaning. A target that never answered is
probed quickly (every 50 ms at first), so that a replica gets traffic soon after it is up.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from meshd.model.replica import NO_ANSWER, ProbeResult
from meshd.spec.model import HealthCheck

FIRST_PAUSE: Final = 0.05
GROWTH: Final = 1.25
AT_ONCE: Final = 64
A_SECOND: Final = 400
"""Probes of replicas that are up, all together: with more of them each is asked less often, so
that thousands leave this process time for its other work."""
HEAD_LIMIT: Final = 8192
GOOD: Final = "ok"


class ProbeTarget(msgspec.Struct, frozen=True):
    """What to probe: host and port, or a Unix socket's `path`. `incarnation` tells one start of
    a replica from the next; `proven` says that it served before this process began, so that
    there is no hurry."""

    host: str
    port: int
    health: HealthCheck
    incarnation: tuple[str, float]
    proven: bool = False
    path: str = ""


def _same(old: ProbeTarget, new: ProbeTarget | None) -> bool:
    return new is not None and msgspec.structs.replace(new, proven=old.proven) == old


class Prober:
    """Keeps a result for every target, as `ask` finds it; calls `on_change` when one
    changed. `clock` gives Unix time."""

    def __init__(
        self,
        on_change: Callable[[], None],
        ask: "Ask | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.results: dict[str, ProbeResult] = {}
        self._ask: Ask = ask or probe
        self._on_change = on_change
        self._clock = clock
        self._targets: dict[str, ProbeTarget] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def want(self, targets: Mapping[str, ProbeTarget]) -> None:
        """Probe exactly these from now on. A changed target starts anew."""
        for name in [n for n, t in self._targets.items() if not _same(t, targets.get(n))]:
            task = self._tasks.pop(name)
            task.cancel()
            old, new = self._targets.pop(name), targets.get(name)
            if new is None or new.incarnation != old.incarnation:
                self.results.pop(name, None)
        for name, target in targets.items():
            if name not in self._targets:
                self._targets[name] = target
                self._tasks[name] = asyncio.create_task(self._watch(name, target))

    def forget(self, name: str) -> None:
        """Begin anew with one target."""
        self.results.pop(name, None)

    async def close(self) -> None:
        """End all probing."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._targets.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str, target: ProbeTarget) -> None:
        health, pause = target.health, FIRST_PAUSE
        if health.type == "none":
            self._note(name, None)
            return
        if target.proven:
            await asyncio.sleep(random.random() * health.interval)
        readiness = health.model_copy(update={"type": "http", "path": health.ready})
        while True:
            unready = None
            async with self._gate:
                problem = await self._ask(target.host, target.port, health, target.path)
                if problem is None and health.ready:
                    unready = await self._ask(target.host, target.port, readiness, target.path)
            self._note(name, problem, unready)
            if target.proven or self.results[name].first_good:
                interval = max(health.interval, len(self._targets) / A_SECOND)
                await asyncio.sleep(interval * (0.9 + 0.2 * random.random()))
            else:
                await asyncio.sleep(pause)
                pause = min(pause * GROWTH, health.interval)

    def _note(self, name: str, problem: str | None, unready: str | None = None) -> None:
        before = self.results.get(name, ProbeResult())
        first = before.first_good
        if problem is not None:
            after = ProbeResult(before.bad + 1, first, problem, before.unready)
        elif unready is not None:
            after = ProbeResult(0, first, unready, unready)
        else:
            after = ProbeResult(0, first or self._clock(), GOOD)
        if after != before:
            self.results[name] = after
            self._on_change()


async def probe(host: str, port: int, health: HealthCheck, path: str = "") -> str | None:
    """Probe once, over the Unix socket at `path` where there is one. What was wrong, for
    people; None when all was well."""
    try:
        async with asyncio.timeout(health.timeout):
            if health.type == "tcp":
                await _tcp(host, port, path)
                return None
            return await _http(host, port, path, health.path)
    except TimeoutError:
        return f"{NO_ANSWER} within {health.timeout:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    except ValueError as error:
        return str(error)


async def _connect(
    host: str, port: int, path: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if path:
        return await asyncio.open_unix_connection(path, limit=HEAD_LIMIT)
    return await asyncio.open_connection(host, port, limit=HEAD_LIMIT)


async def _tcp(host: str, port: int, path: str) -> None:
    _, writer = await _connect(host, port, path)
    writer.transport.abort()


async def _http(host: str, port: int, path: str, target: str) -> str | None:
    """GET `target`; a status of 200 to 399 is good. The body is not read."""
    reader, writer = await _connect(host, port, path)
    try:
        name = "localhost" if path else f"[{host}]" if ":" in host else host
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: meshd-probe\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        line = await reader.readline()
    finally:
        writer.transport.abort()
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return "closed the connection without an answer" if not line else "answered no HTTP"
    status = int(words[1])
    return None if 200 <= status < 400 else f"GET {target} answered {status}"


Ask = Callable[[str, int, HealthCheck, str], Awaitable[str | None]]
"""Probes one address once, as `probe` does."""
