"""A replica as the control plane sees it, its probe results and its failures. Pure.

`meshd.reconcile.observe` builds `Replica` values. Plans, scaling, publishing and the status pages
read them.
"""

import errno
import os
from typing import Final, Protocol

import msgspec

from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth
from meshd.model.service_key import ServiceKey, service_key
from meshd.spec.model import HealthCheck

NO_ANSWER: Final = "no answer"
"""Beginning of a probe's text if it got no answer in time."""
REFUSED: Final = os.strerror(errno.ECONNREFUSED).lower()
"""Beginning of a probe's text while nothing listens."""
ELSEWHERE: Final = "the container listens on"
"""Part of a probe's text if a program listens, but not where the mesh connects."""
DEFAULT_PATH: Final = HealthCheck().path
UNKNOWN_PATH: Final = f"GET {DEFAULT_PATH} answered 404; x-mesh.health sets another path, or tcp"
"""A probe's text if a program answers that has no such path."""

Version = tuple[ServiceKey, str]
"""A service's key and one of its revisions."""


class RandomSource(Protocol):
    """A source of random numbers, so that pure code can be tested with fixed ones."""

    def random(self) -> float:
        """Return the next number in [0, 1)."""


class ProbeResult(msgspec.Struct, frozen=True):
    """The probes of one replica so far.

    - `bad`: failed probes in a row; 0 if the last one succeeded.
    - `first_good`: when a probe first succeeded (Unix time, seconds); 0: never.
    - `text`: the last answer.
    - `unready`: the readiness probe's answer while it fails; else empty.
    - `host`: the address that answered last, of a replica with several; else empty.
    """

    bad: int = 0
    first_good: float = 0.0
    text: str = ""
    unready: str = ""
    host: str = ""


class ReplicaFailure(msgspec.Struct, frozen=True):
    """A failure of a replica.

    - `at`: Unix time in seconds; `text`: what happened, for people.
    - `final`: the replica had its whole start timeout and never got healthy, so waiting for
      further failures is of no use.
    - `external`: something outside most likely caused it: SIGKILL without lack of memory, or the
      replica could not be started.
    """

    at: float
    replica: str
    text: str
    final: bool = False
    external: bool = False


class Replica(msgspec.Struct, frozen=True):
    """One replica, as the control plane sees it. Times are Unix times in seconds; 0: never or
    unknown.

    - `managed`: meshd started it; `copied`: as a copy of an adopted container.
    - `since`: when it entered its phase.
    - `drained`: no live worker uses its endpoint any more; `in_flight`: requests it serves.
    - `bad`, `probe`, `unready`, `answered`: its probes, see `ProbeResult`; `answered`: one
      succeeded.
    - `cause`: why it was started or drained.
    - `counted_as_failure`: its drain counted as a failure of its version.
    - `attempt`: quick failures in a row before its start.
    - `exit_code`, `ended_at`, `uptime`: how and when it ended, and the seconds that it ran.
    - `listed`: the runtime lists it; `busy`: an operation on it runs.
    - `paused_by_others`: something other than meshd paused it.
    - `drift`: how it differs from its revision; empty: it does not.
    - `replaced_for`: why it is replaced although it matches its revision; empty: it is not.
    - `plain`: its service was plain when it started, so that others call it directly.
    - `in_hooks`: an operation starts it, but its `pre_start` or `post_start` commands still run.
    - `warm`: it belongs to the warm pool; `resumed_at`: when it left the pool.
    - `host`, `port`: where the mesh reaches it; `alternatives`: more addresses to try.
    - `placed`: why it is on its `node`; empty where nothing was to choose.
    - `addresses`, `gateways`, `error`: see `meshd.model.runtime.ObservedReplica`.
    """

    name: str
    project: str
    service: str
    revision: str
    phase: Phase
    managed: bool = True
    copied: bool = False
    since: float = 0.0
    created_at: float = 0.0
    started_at: float = 0.0
    ready_since: float = 0.0
    drain_since: float = 0.0
    drained: bool = False
    in_flight: int = 0
    bad: int = 0
    health: ContainerHealth = ContainerHealth.NONE
    probe: str = ""
    cause: str = ""
    counted_as_failure: bool = False
    attempt: int = 0
    exit_code: int | None = None
    ended_at: float = 0.0
    uptime: float = 0.0
    oom_killed: bool = False
    listed: bool = True
    busy: bool = False
    plain: bool = False
    in_hooks: bool = False
    paused_by_others: bool = False
    drift: str = ""
    replaced_for: str = ""
    unready: str = ""
    warm: bool = False
    answered: bool = False
    resumed_at: float = 0.0
    host: str | None = None
    port: int = 0
    node: str = ""
    addresses: tuple[str, ...] = ()
    gateways: tuple[tuple[str, str], ...] = ()
    alternatives: tuple[str, ...] = ()
    error: str = ""
    placed: str = ""

    @property
    def key(self) -> ServiceKey:
        """`PROJECT/SERVICE`."""
        return service_key(self.project, self.service)

    @property
    def hangs(self) -> bool:
        """Whether it leaves because it does not answer probes. Most likely it answers no request
        either."""
        return self.counted_as_failure and NO_ANSWER in self.cause

    @property
    def serves(self) -> bool:
        """Whether it gets requests: it is ready, and its readiness probe succeeds."""
        return self.phase is Phase.READY and not self.unready
