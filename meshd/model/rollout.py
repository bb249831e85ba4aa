"""Rollouts: their states with a transition table, and the rollout that a deployment begins. Pure.

`meshd.reconcile.rollout` decides when a rollout changes its state, and `meshd.store.store` is the
only writer. `DesiredService` embeds one `Rollout` for each service.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from meshd.spec.model import Project


class RolloutState(Enum):
    """State of a service's rollout. The values are stored."""

    ROLLING = "rolling"
    """The new revision replaces the previous one."""
    PAUSED = "paused"
    """A user paused the rollout. Replicas and traffic shares stay as they are."""
    HALTED = "halted"
    """The new revision failed, and its failure action is `pause`. The previous revision serves
    until a user resumes the rollout or deploys again."""
    ROLLED_BACK = "rolled-back"
    """The new revision failed. The previous one serves again."""
    DONE = "done"
    """The new revision serves alone."""

    @property
    def word(self) -> str:
        """The word for this state in the API, events and release history."""
        return "paused" if self is RolloutState.HALTED else self.value


ROLLOUT_TRANSITIONS: Final[Mapping[RolloutState, tuple[RolloutState, ...]]] = MappingProxyType(
    {
        RolloutState.ROLLING: (
            RolloutState.ROLLING,
            RolloutState.PAUSED,
            RolloutState.HALTED,
            RolloutState.ROLLED_BACK,
            RolloutState.DONE,
        ),
        RolloutState.PAUSED: (RolloutState.ROLLING,),
        RolloutState.HALTED: (RolloutState.ROLLING,),
        RolloutState.ROLLED_BACK: (RolloutState.ROLLING,),
        RolloutState.DONE: (RolloutState.ROLLING,),
    }
)
"""The states that can follow each state. Every rollout begins as ROLLING. A deployment of another
revision begins a new rollout from any state; `meshd rollout resume` resumes PAUSED and HALTED."""


class Rollout(msgspec.Struct, frozen=True):
    """The latest rollout of a service.

    - `revision`: the revision that was deployed last.
    - `previous`: the revision to go back to; empty if there is none.
    - `since`: when the state was entered (Unix time, seconds).
    - `cause`: why the rollout ended or was paused; empty while it is rolling.
    - `release_number`: number of its release; 0 before it is stored.
    - `stage`: number of completed stages; `stage_since`: when the last one was completed, or the
      rollout began (Unix time, seconds).
    - `skips_stages`: replace all replicas without stages or analysis, for an undo.
    """

    revision: str
    previous: str
    state: RolloutState
    since: float
    cause: str = ""
    release_number: int = 0
    stage: int = 0
    stage_since: float = 0.0
    skips_stages: bool = False

    @property
    def is_rolling(self) -> bool:
        """Whether the new revision is being rolled out now."""
        return self.state is RolloutState.ROLLING

    @property
    def in_progress(self) -> bool:
        """Whether the rollout has not ended: it is rolling, or a user paused it."""
        return self.state in (RolloutState.ROLLING, RolloutState.PAUSED)

    @property
    def is_unfinished(self) -> bool:
        """Whether it is neither done nor rolled back."""
        return self.is_rolling or self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether it can be resumed: a user paused it, or its failure halted it."""
        return self.state in (RolloutState.PAUSED, RolloutState.HALTED)

    @property
    def paused_by_user(self) -> bool:
        """Whether a user paused it."""
        return self.state is RolloutState.PAUSED

    @property
    def is_rolling_back(self) -> bool:
        """Whether the new revision failed and leaves, or has left."""
        return self.state in (RolloutState.ROLLED_BACK, RolloutState.HALTED)

    @property
    def is_done(self) -> bool:
        """Whether the new revision replaced the previous one."""
        return self.state is RolloutState.DONE

    @property
    def effective_revision(self) -> str:
        """The revision that new replicas run."""
        held_back = self.is_paused or self.is_rolling_back
        return self.previous if held_back and self.previous else self.revision


NO_ROLLOUT: Final = Rollout(revision="", previous="", state=RolloutState.DONE, since=0.0)
"""The rollout of a service that was never deployed: an adopted one."""


class StoredProject(msgspec.Struct, frozen=True):
    """A project as it was last deployed.

    - `who` deployed it; `at`: when (Unix time, seconds).
    - `leaving`: whether it is being taken down.
    - `plan`: the plan of that deployment, as text.
    """

    project: Project
    who: str
    at: float
    leaving: bool
    plan: str


class Override(msgspec.Struct, frozen=True):
    """A number of replicas that a user set.

    - `until`: when it ends (Unix time, seconds); 0: never.
    """

    replicas: int
    until: float

    def holds(self, now: float) -> bool:
        """Whether it is still in force at `now`."""
        return not 0 < self.until <= now


class Scaling(msgspec.Struct, frozen=True):
    """The autoscaler's last result for a service.

    - `desired`: number of replicas.
    - `state`: the policy's state as JSON.
    - `warm`: number of paused replicas in the warm pool.
    """

    desired: int
    state: str
    warm: int = 0


def next_rollout(old: Rollout | None, revision: str, now: float) -> Rollout | None:
    """Return the rollout that a deployment of `revision` begins; None if nothing changes.

    Its previous revision is always the last one whose rollout was done.
    """
    state = RolloutState.ROLLING
    if old is None:
        return Rollout(revision=revision, previous="", state=state, since=now)
    if old.revision == revision:
        if old.is_done or old.is_rolling:
            return None
        return Rollout(revision=revision, previous=old.previous, state=state, since=now)
    good = old.revision if old.is_done else old.previous
    return Rollout(
        revision=revision,
        previous="" if good == revision else good,
        state=state,
        since=now,
    )
