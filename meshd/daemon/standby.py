"""What the API offers while another control process leads: the status, and the end.

`Daemon` serves it until this process leads. Everything else is refused with the name of the leader.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from meshd.api.dto import Exposition, Status
from meshd.control.shutdown import ANSWER_TIME
from meshd.control.status_reader import version
from meshd.model.access import Identity
from meshd.model.errors import Rejected


class StandbyControl:
    """The part of `meshd.api.port.Control` that a process has which stands by. `leader` returns the
    host that leads, `problem` why this process cannot take over from a leader that is gone, `end`
    ends this process."""

    def __init__(
        self,
        lease: str,
        leader: Callable[[], str],
        problem: Callable[[], str],
        end: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._leader = leader
        self._problem = problem
        self._end = end

    def status(self) -> Status:
        """See `Control.status`."""
        return Status(
            version=version(),
            runtime="swarm",
            runtime_state="ok",
            generation=(0, 0),
            workers=(),
            proxy=(),
            adopts=False,
            standby=self.reason(),
            leader=self._leader(),
        )

    def reason(self) -> str:
        """Return why this process does nothing."""
        problem = self._problem()
        if problem:
            return f"standing by: this meshd cannot take over lease {self._lease}: {problem}"
        leader = self._leader()
        if not leader:
            return f"standing by: it is not known yet who leads lease {self._lease}"
        return f"standing by: {leader} leads lease {self._lease}"

    async def metrics(self, accept: str) -> Exposition:  # noqa: ARG002 (there are none)
        """See `Control.metrics`."""
        return Exposition("text/plain; version=0.0.4", b"# this meshd stands by\n")

    async def shutdown(self, stop_replicas: bool) -> None:  # noqa: ARG002 (replicas are not ours)
        """See `Control.shutdown`; the leader and all replicas continue. The answer goes out
        first."""
        asyncio.get_running_loop().call_later(ANSWER_TIME, self._end)

    def access_control(self) -> "StandbyControl":
        """See `Control.access_control`."""
        return self

    def record(self, caller: Identity, method: str, path: str, status: int, detail: str) -> None:
        """See `AccessControl.record`: nothing is stored while standing by."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._refuse

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise Rejected(f"{self.reason()}; ask the meshd that leads")
