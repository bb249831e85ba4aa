"""Releases of a service and what they served."""

import msgspec

from meshd.model.base import Value


class RevisionCounts(Value, frozen=True):
    """What was sent to one revision and how that ended: `served` answers under 500, `failed`
    ones without a good answer, `retried` ones that failed and were then tried elsewhere, so
    that no client saw it. Not in any of them: what the client gave up, and tunnels."""

    served: int = 0
    failed: int = 0
    retried: int = 0


class Tally(Value, frozen=True):
    """Everything that a service was asked while a release was under way, by the proxy's own
    counts. `requests` were answered, `errors` of them with a 5xx, by a replica or by the proxy;
    `parked` waited for a first replica. `unknown` are worker-seconds of which no report came,
    while the control process was away; the last report told of the time `until` then."""

    requests: int = 0
    errors: int = 0
    parked: int = 0
    unknown: float = 0.0
    until: float = 0.0
    revisions: dict[str, RevisionCounts] = msgspec.field(default_factory=dict)


class Release(Value, frozen=True):
    """One revision of a service that was brought in: by whom and `how` (`deploy`, `undo`), what
    it `changed`, and what came of it: `rolling`, `paused`, `done`, `rolled-back`, or `overtaken`
    by the next. Releases are numbered within their service."""

    project: str
    service: str
    number: int
    revision: str
    previous: str
    how: str
    who: str
    at: float
    changed: str
    outcome: str
    cause: str = ""
    ended: float = 0.0
    tally: Tally | None = None

    def counted(self, tally: Tally | None) -> "Release":
        """The same with these counts."""
        return msgspec.structs.replace(self, tally=tally)
