"""A replica as the control plane sees it."""

from typing import Final, Protocol

import msgspec

from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth

NO_ANSWER: Final = "no answer"
"""How the text of a probe begins that was not answered in time."""


Version = tuple[str, str]
"""A service's key (`PROJECT/SERVICE`) and a revision of it."""


class RandomSource(Protocol):
    """A source of numbers in [0, 1)."""

    def random(self) -> float:
        """The next number."""


class ProbeResult(msgspec.Struct, frozen=True):
    """A replica's probes so far. `bad` is the current streak of bad ones, 0 while the last was
    good; `first_good` is the Unix time of the first good one ever, 0 before it; `text` is the
    last answer, and `unready` that of the readiness probe while it is a bad one."""

    bad: int = 0
    first_good: float = 0.0
    text: str = ""
    unready: str = ""


class ReplicaFailure(msgspec.Struct, frozen=True):
    """A replica failed by itself: when, which, and how it showed. `final` when there is no
    use in waiting for the next one: it had all the time it may take, and never got healthy.
    `external` when something outside most likely ended it (SIGKILL, and not for memory), or kept
    it from being started."""

    at: float
    replica: str
    text: str
    final: bool = False
    external: bool = False


class Replica(msgspec.Struct, frozen=True):
    """One replica as plans see it. `frozen`: somebody paused it who was not us. `drift`: how it is
    not what its revision says any more."""

    name: str
    project: str
    service: str
    revision: str
    phase: Phase
    managed: bool = True
    copied: bool = False
    since: float = 0.0
    created_at: float = 0.0
    ready_since: float = 0.0
    drain_since: float = 0.0
    drained: bool = False
    in_flight: int = 0
    bad: int = 0
    health: ContainerHealth = ContainerHealth.NONE
    probe: str = ""
    cause: str = ""
    blamed: bool = False
    attempt: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    listed: bool = True
    busy: bool = False
    frozen: bool = False
    drift: str = ""
    unready: str = ""
    reserve: bool = False
    answered: bool = False
    woken: float = 0.0
    host: str | None = None
    port: int = 0
    node: str = ""
    addresses: tuple[str, ...] = ()
    gateways: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """`PROJECT/SERVICE`."""
        return f"{self.project}/{self.service}"

    @property
    def serves(self) -> bool:
        """Whether it gets requests: it is in rotation, and asks for them."""
        return self.phase is Phase.READY and not self.unready
