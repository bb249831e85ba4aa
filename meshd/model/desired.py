"""Desired state: one frozen value for each service and one for the whole mesh. Pure.

`meshd.reconcile.desired_state` builds it from the store and from adopted containers. Plans,
rollouts, scaling and the status pages read it.
"""

import msgspec

from meshd.model.rollout import NO_ROLLOUT, Rollout
from meshd.model.service_key import ServiceKey, service_key
from meshd.spec.model import RolloutSettings, Service, UpdateOrder


class DesiredService(msgspec.Struct, frozen=True):
    """One service at one revision.

    - `spec` and `revision`: what its replicas run; after a failed rollout those of the previous
      revision.
    - `desired`: desired number of replicas: the override, the autoscaler's number, or the spec's.
    - `rollout`: its latest rollout.
    - `rollout_settings`: settings of the revision that was deployed last, where `spec` is the
      previous one; None: those of `spec`.
    - `order`: the order in which replicas are replaced, where `spec` is not the revision that was
      deployed last; None: that of `spec`.
    - `keeps_previous`: whether the replicas that a blue/green rollout replaced still run.
    - `warm`: number of replicas to keep paused in addition.
    - `deployed_at`: when its project was deployed last (Unix time, seconds).
    - `adopted`: whether others started its containers; `template`: name of the adopted replica
      that new ones are copied from.
    """

    project: str
    spec: Service
    revision: str
    desired: int
    rollout: Rollout = NO_ROLLOUT
    rollout_settings: RolloutSettings | None = None
    order: UpdateOrder | None = None
    keeps_previous: bool = False
    warm: int = 0
    deployed_at: float = 0.0
    adopted: bool = False
    template: str = ""

    @property
    def key(self) -> ServiceKey:
        """`PROJECT/SERVICE`."""
        return service_key(self.project, self.spec.name)

    @property
    def stops_first(self) -> bool:
        """Whether a replica must have ended before its successor starts."""
        return (self.order or self.spec.update_order) == "stop-first"

    @property
    def max_containers(self) -> int | None:
        """How many containers may exist at any time, those that leave included; None: no limit.

        With `stop-first` it is the desired number, and the warm pool. Explicit settings allow more
        (`max_surge`, a canary, blue/green), except for a service whose replicas hold data.
        """
        if not self.stops_first:
            return None
        if self.spec.data_mount is not None:
            return self.desired
        settings = self.rollout_settings or self.spec.mesh.rollout
        surges = settings.max_surge not in {"", "0", "0%"}
        if surges or settings.strategy in {"canary", "blue-green"}:
            return None
        return self.desired + self.warm


class Desired(msgspec.Struct, frozen=True):
    """Desired state of the whole mesh.

    - `projects`: all known projects. Replicas of theirs without a service here are removed.
      Replicas of other projects are left alone, as another mesh may own them.
    - `leaving`: projects that are being taken down.
    """

    services: tuple[DesiredService, ...] = ()
    projects: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()


def desired_replicas(spec: Service, override: int | None, decided: int | None) -> int:
    """Return the desired number of replicas.

    That is the override if a user set one, else the autoscaler's number within the spec's bounds,
    else the spec's own number.
    """
    if override is not None:
        return override
    if spec.mesh.is_job:
        return 0
    if spec.mesh.scale is None:
        return spec.replicas
    scale = spec.mesh.scale
    number = decided if decided is not None else spec.replicas
    return min(max(number, scale.min), max(scale.max, scale.min))
