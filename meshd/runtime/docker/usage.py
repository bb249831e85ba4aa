"""CPU and memory of containers, as the engine counts them: cgroup v1 and v2.

Called by `meshd.runtime.docker.runtime` for `Runtime.usage`, once per sample of
`meshd.scaling.usage_sampler`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from yarl import URL

from meshd.model.runtime import Usage
from meshd.runtime.docker.engine import Engine

AT_ONCE: Final = 8
"""Requests to the engine at once, so that others are not delayed."""
NANO: Final = 1e-9
"""Seconds per nanosecond."""
_NOW: Final = {"stream": "0", "one-shot": "1"}
"""Without `one-shot` the engine waits a second to have a second reading."""


async def read_usage(engine: Engine, names: Sequence[str]) -> Mapping[str, Usage]:
    """Return the usage of those of `names` that run. Raises RuntimeUnavailable."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Usage | None:
        async with slots, engine.request() as docker:
            url = URL(f"{docker.docker_host}/{docker.api_version}/containers/{name}/stats")
            async with docker.session.get(url.with_query(_NOW)) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                # Podman sends no content type.
                answer = await response.json(content_type=None)
                return parse_stats(answer, time.monotonic())

    found = await asyncio.gather(*map(one, names))
    return {name: usage for name, usage in zip(names, found, strict=True) if usage is not None}


def parse_stats(answer: Mapping[str, Any] | None, at: float) -> Usage | None:
    """Convert the engine's statistics. None for a container that does not run: the engine
    answers `null` or leaves memory out."""
    memory = (answer or {}).get("memory_stats") or {}
    if answer is None or "usage" not in memory:
        return None
    stats = memory.get("stats") or {}
    cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    seconds = answer["cpu_stats"]["cpu_usage"]["total_usage"] * NANO
    return Usage(seconds, max(0, memory["usage"] - cached), at)
