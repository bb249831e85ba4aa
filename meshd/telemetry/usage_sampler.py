"""What replicas use of CPU and memory and what the nodes have, asked of the runtime every few
seconds."""

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
_RUNS: Final = (Phase.STARTING, Phase.PROBING, Phase.READY, Phase.DRAINING)


def loads(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, Load]:
    """What was used between two readings; the CPU of a replica that is new is not known yet.
    Pure."""
    found: dict[str, Load] = {}
    for name, now in after.items():
        was = before.get(name)
        cores = None
        if was is not None and now.at > was.at and now.cpu_seconds >= was.cpu_seconds:
            cores = (now.cpu_seconds - was.cpu_seconds) / (now.at - was.at)
        found[name] = Load(cores=cores, memory=now.memory)
    return found


class UsageSampler:
    """Keeps `loads` by replica, and `nodes`, while `run` runs. While the runtime is away no load
    is known, and the nodes are those seen last."""

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
        """Read every few seconds until cancelled; call `on_read` with the loads of each
        reading."""
        while True:
            await self._read(replicas())
            on_read(self.loads)
            await asyncio.sleep(PAUSE)

    async def _read(self, replicas: Sequence[Replica]) -> None:
        names = [r.name for r in replicas if r.listed and r.phase in _RUNS]
        try:
            usage = await self._runtime.usage(names) if names else {}
            self.nodes = await self._runtime.nodes()
        except RuntimeFailure as error:
            _log.debug("what replicas use is not known", reason=str(error))
            usage = {}
        self.loads = loads(self._last, usage)
        self._last = usage
