"""What is wanted, as plans see it: one frozen value for every service."""

import msgspec

from meshd.spec.model import RolloutSettings, Service


class DesiredService(msgspec.Struct, frozen=True):
    """One service at one revision.

    - `spec` and `revision`: what replicas are to be; after a rollback those of the revision
      that was good before.
    - `count`: replicas wanted: the override, the autoscaler's number, or the spec's.
    - `previous`: the revision to go back to; empty when there is none.
    - `rollout`: `rolling` while a new revision is being brought in, `paused`, else `done`.
    - `rollout_since`: Unix time it began; failures before it are not held against it.
    - `warm`: further replicas to keep paused.
    - `coming`: the revision that was asked for last, whether it is to run or not.
    - `stage`: how many stages of its rollout are passed (see `strategy`), the last at
      `stage_since`; `swift` ones are left out. `by_hand`: it was paused by hand.
    - `number`: that of its release, 0 for none.
    - `way`: how `coming` is brought in, where `spec` is not that of it.
    - `kept`: what it replaced is kept for a while.
    - `template`: for an adopted service, the replica that more are copied from.
    """

    project: str
    spec: Service
    revision: str
    count: int
    previous: str = ""
    rollout: str = "done"
    rollout_since: float = 0.0
    adopted: bool = False
    template: str = ""
    warm: int = 0
    coming: str = ""
    stage: int = 0
    stage_since: float = 0.0
    swift: bool = False
    by_hand: bool = False
    way: RolloutSettings | None = None
    number: int = 0
    kept: bool = False

    @property
    def key(self) -> str:
        """`PROJECT/SERVICE`."""
        return f"{self.project}/{self.spec.name}"


class Desired(msgspec.Struct, frozen=True):
    """Everything that is wanted. `projects` are all that are known; replicas of theirs without
    a service here are to go. Those in `leaving` go as a whole. Of other projects nothing is
    touched: they may be another mesh's."""

    services: tuple[DesiredService, ...] = ()
    projects: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()


def wanted_count(spec: Service, override: int | None, decided: int | None) -> int:
    """Replicas wanted: what was set by hand, else the autoscaler's number within the spec's
    bounds, else the spec's own."""
    if override is not None:
        return override
    if spec.mesh.runs_once:
        return 0
    if spec.mesh.scale is None:
        return spec.replicas
    scale = spec.mesh.scale
    number = decided if decided is not None else spec.replicas
    return min(max(number, scale.min), max(scale.max, scale.min))
