"""What is stored of projects and services, as values, and the rollout that a deployment begins.

Pure: nothing here reads or writes.
"""

from typing import Literal

import msgspec

from meshd.spec.model import Project

RolloutState = Literal["rolling", "done", "rolled-back", "paused"]


class StoredProject(msgspec.Struct, frozen=True):
    """A project as it was last deployed; `leaving` while it is being taken down."""

    project: Project
    who: str
    at: float
    leaving: bool
    plan: str


class Rollout(msgspec.Struct, frozen=True):
    """Where a service stands between revisions. `revision` was asked for last; `previous` is
    what runs instead once the state is `rolled-back`. `number` is that of its release. `stage`
    is how many stages of it are passed, the last at `stage_since`. It was paused `by_hand`, or
    goes `swift`ly, without stages: an undo."""

    revision: str
    previous: str
    state: RolloutState
    since: float
    cause: str = ""
    number: int = 0
    stage: int = 0
    stage_since: float = 0.0
    by_hand: bool = False
    swift: bool = False

    @property
    def effective(self) -> str:
        """The revision that replicas are to be of."""
        back = self.state in ("rolled-back", "paused") and self.previous
        return self.previous if back else self.revision


class Override(msgspec.Struct, frozen=True):
    """A number of replicas set by hand; `until` is Unix time, 0 without end."""

    replicas: int
    until: float

    def holds(self, now: float) -> bool:
        """Whether it still counts."""
        return not 0 < self.until <= now


class Scaling(msgspec.Struct, frozen=True):
    """The autoscaler's last number for a service, its state as JSON, and the size of the warm
    pool that it has found worth keeping."""

    desired: int
    state: str
    warm: int = 0


def next_rollout(old: Rollout | None, revision: str, now: float) -> Rollout | None:
    """The rollout that a deployment of `revision` begins; None when there is nothing to do.

    The revision to go back to is always the last one that proved good.
    """
    if old is None:
        return Rollout(revision=revision, previous="", state="rolling", since=now)
    if old.revision == revision:
        if old.state in ("done", "rolling"):
            return None
        return Rollout(revision=revision, previous=old.previous, state="rolling", since=now)
    good = old.revision if old.state == "done" else old.previous
    return Rollout(
        revision=revision,
        previous="" if good == revision else good,
        state="rolling",
        since=now,
    )
