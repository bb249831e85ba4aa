"""CPU and memory that replicas use, and the size of the nodes, read from the runtime.

The daemon runs it. Scaling reads `loads` and `nodes`, capacity checks read `nodes`, and
`meshd.store.usage` gets every reading.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node, Usage
from meshd.model.scaling import Load
from meshd.runtime.base import Runtime, RuntimeFailure

_log = structlog.stdlib.get_logger(__name__)
PAUSE: Final = 5.0
"""Seconds between two readings: asking an engine for the usage of many containers takes up to a
second."""
_RUNNING: Final = (Phase.STARTING, Phase.PROBING, Phase.READY, Phase.DRAINING)


def loads_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, Load]:
    """Return the load of each replica between two readings. The CPU of a replica that is not in the
    first one is unknown. Pure."""
    found: dict[str, Load] = {}
    for name, now in after.items():
        last = before.get(name)
        cores = None
        if last is not None and now.at > last.at and now.cpu_seconds >= last.cpu_seconds:
            cores = (now.cpu_seconds - last.cpu_seconds) / (now.at - last.at)
        found[name] = Load(cores=cores, memory=now.memory)
    return found


class UsageSampler:
    """Reads usage every few seconds while `run` runs.

    - `loads`: by replica; empty while the runtime does not answer.
    - `nodes`: those of the last reading that succeeded.
    - `limits_memory`: whether the runtime enforces memory limits.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.loads: Mapping[str, Load] = {}
        self.nodes: Sequence[Node] = ()
        self.limits_memory = runtime.capabilities.memory_limits
        self._runtime = runtime
        self._last: Mapping[str, Usage] = {}

    async def run(
        self,
        replicas: Callable[[], Sequence[Replica]],
        on_read: Callable[[Mapping[str, Load]], None],
    ) -> None:
        """Read every few seconds until cancelled. Call `on_read` with the loads of each reading."""
        while True:
            await self._read(replicas())
            on_read(self.loads)
            await asyncio.sleep(PAUSE)

    async def _read(self, replicas: Sequence[Replica]) -> None:
        names = [r.name for r in replicas if r.listed and r.phase in _RUNNING]
        try:
            usage = await self._runtime.usage(names) if names else {}
            self.nodes = await self._runtime.nodes()
        except RuntimeFailure as error:
            _log.debug("usage of replicas is unknown", reason=str(error))
            usage = {}
        self.loads = loads_between(self._last, usage)
        self._last = usage
