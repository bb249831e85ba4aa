"""Releases of a service, how they ended, and what the proxy served meanwhile. Pure.

`meshd.store.releases` keeps them, `meshd.telemetry.release_counts` counts, and the API answers
with them.
"""

from enum import StrEnum

import msgspec

from meshd.model.base import Value


class RevisionCounts(Value, frozen=True):
    """Requests sent to one revision.

    - `served`: responses below 500.
    - `failed`: requests without a good response.
    - `retried`: failed attempts that were retried on another replica, so that no client saw them.

    Requests that the client gave up and tunnels are not counted.
    """

    served: int = 0
    failed: int = 0
    retried: int = 0


class ReleaseCounts(Value, frozen=True):
    """Requests to a service during one release, as the proxy counted them.

    - `requests`: requests that were answered, by a replica or by the proxy.
    - `errors`: those of them with a 5xx response.
    - `parked`: requests that waited for a first replica.
    - `unknown`: worker-seconds without a report, because the control process was away.
    - `until`: end of the last reported second (Unix time).
    """

    requests: int = 0
    errors: int = 0
    parked: int = 0
    unknown: float = 0.0
    until: float = 0.0
    revisions: dict[str, RevisionCounts] = msgspec.field(default_factory=dict)


class ReleaseOutcome(StrEnum):
    """How a release ended, or that it is in progress. The strings are stored and sent."""

    ROLLING = "rolling"
    PAUSED = "paused"
    """Paused by a user, or halted because it failed."""
    DONE = "done"
    ROLLED_BACK = "rolled-back"
    OVERTAKEN = "overtaken"
    """The next release began before this one ended."""


class Release(Value, frozen=True):
    """One rollout of a revision, in the history of its service.

    - `number`: counts the releases of the service from 1.
    - `how`: `deploy` or `undo`; `who` began it; `at`: when (Unix time, seconds).
    - `changed`: the changes to the service, as text.
    - `cause`: why it ended; `ended`: when (Unix time, seconds; 0: not yet).
    - `counts`: requests served during the release; None if none were counted.
    """

    project: str
    service: str
    number: int
    revision: str
    previous: str
    how: str
    who: str
    at: float
    changed: str
    outcome: ReleaseOutcome
    cause: str = ""
    ended: float = 0.0
    counts: ReleaseCounts | None = msgspec.field(default=None, name="tally")

    def with_counts(self, counts: ReleaseCounts | None) -> "Release":
        """Return a copy with these counts."""
        return msgspec.structs.replace(self, counts=counts)
