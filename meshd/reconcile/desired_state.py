"""Builds the desired state: the store's projects, and services adopted from running containers.

Owned by the reconciler, which calls `desired` in each pass. The store has the projects and the
rollouts; `meshd.spec.labels` reads the labels of containers to adopt.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import Desired, DesiredService, desired_replicas
from meshd.model.placement import count_global
from meshd.model.rollout import Rollout, RolloutState, StoredProject
from meshd.model.runtime import Node, ObservedReplica, ReplicaState
from meshd.publish.compile import route_conflicts
from meshd.spec import labels
from meshd.spec.errors import SpecError
from meshd.spec.model import Project, Service, UpdateOrder
from meshd.store.store import Store

_RUNS = (ReplicaState.RUNNING, ReplicaState.PAUSED)
CRASH_SEEN: Final = 10.0
"""Seconds after a crash of the last container of an adopted service in which a copy may replace
it; after that the service counts as down on purpose."""
STOP_SEEN: Final = 10.0
"""Seconds after others stopped one container in which they may still stop the rest: Compose's
default stop timeout."""
DESCRIBED: Final = 4096
"""Containers whose labels are cached; the cache is emptied when it is full."""
_ORDERLY = (None, 0, 143)
"""Exit codes of a container that was asked to stop: none yet, its own choice, SIGTERM's."""


class DesiredStateBuilder:
    """Builds `Desired` from the store; caches what does not change between passes. `can_pause`:
    whether the runtime can pause replicas. `nodes`: the nodes that take replicas, none while they
    are not known; None on a runtime with one node, where `mode: global` means one replica."""

    def __init__(
        self,
        store: Store,
        can_pause: bool = True,
        nodes: Callable[[], Sequence[Node]] | None = None,
    ) -> None:
        self._nodes = nodes
        self._can_pause = can_pause
        self._store = store
        self._copies_allowed = True
        self._holds: dict[str, int] = {}
        self._described: dict[str, tuple[object, tuple[str, Service] | None]] = {}
        self._desired = Desired()
        self._by_key: dict[str, DesiredService] = {}
        self._projects: tuple[Project, ...] = ()
        self._bad_labels: dict[str, str] = {}
        self._conflicts: list[str] = []

    def desired(
        self,
        listed: Mapping[str, ObservedReplica],
        now: float,
        stopping: frozenset[str] = frozenset(),
        elsewhere: frozenset[str] = frozenset(),
    ) -> Desired:
        """Return the desired state at `now`; the same object if nothing changed.

        - `stopping`: the replicas that meshd itself stops now.
        - `elsewhere`: stored projects that another mesh holds; nothing of them is desired here.
        """
        services: list[DesiredService] = []
        here = {n: p for n, p in self._store.projects.items() if n not in elsewhere}
        for name, stored in here.items():
            services += self._stored(name, stored, now)
        if self._nodes is not None:
            known = self._nodes()
            services = [spread_globally(s, known, _count_listed(listed, s)) for s in services]
        taken = {service.key for service in services}
        services += self._adopted(listed, taken, now, stopping)
        desired = Desired(
            services=tuple(services),
            projects=frozenset(here) | _copied(listed),
            leaving=frozenset(n for n, p in here.items() if p.leaving),
        )
        if desired != self._desired:
            self._desired = desired
            self._by_key = {service.key: service for service in services}
            self._projects = _effective(services)
            self._conflicts = route_conflicts(self._projects)
        return self._desired

    def hold(self, keys: Collection[str]) -> None:
        """Desire no replicas of these services until `release` was called as often. Not stored: a
        hold ends with the process."""
        for key in keys:
            self._holds[key] = self._holds.get(key, 0) + 1

    def release(self, keys: Collection[str]) -> None:
        """End one hold of each of these services."""
        for key in keys:
            self._holds[key] -= 1
            if not self._holds[key]:
                del self._holds[key]

    def stop_copies(self) -> None:
        """Desire no copies of adopted containers from now on: the daemon ends."""
        self._copies_allowed = False

    @property
    def problems(self) -> frozenset[str]:
        """The problems of adopted containers as of the last `desired`: invalid labels, and routes
        that are taken. (A deployment with such problems is rejected.)"""
        return frozenset([*self._bad_labels.values(), *self._conflicts])

    @property
    def services(self) -> Mapping[str, DesiredService]:
        """All services by key, as of the last `desired`; never edited."""
        return self._by_key

    def service(self, key: str) -> DesiredService | None:
        """Return a service by key, as of the last `desired`."""
        return self._by_key.get(key)

    def project(self, name: str) -> Project | None:
        """Return a stored project as it was deployed."""
        stored = self._store.projects.get(name)
        return stored.project if stored else None

    def effective_projects(self) -> Sequence[Project]:
        """Return the projects to serve: rolled-back services have their last good revision."""
        return self._projects

    def _stored(self, name: str, stored: StoredProject, now: float) -> list[DesiredService]:
        found = []
        for spec in stored.project.services:
            key = f"{name}/{spec.name}"
            rollout = self._store.rollouts[key]
            revision = rollout.effective_revision
            settings, order = spec.mesh.rollout, None
            if revision != rollout.revision:
                deployed = spec
                spec = self._store.revision(key, revision) or spec
                order = _order_of_return(deployed, spec)
            ends = stored.leaving or key in self._holds
            found.append(
                DesiredService(
                    project=name,
                    spec=spec,
                    revision=revision,
                    desired=0 if ends else desired_count(self._store, key, spec, now),
                    rollout=_ended(rollout) if stored.leaving else rollout,
                    rollout_settings=settings,
                    order=order,
                    keeps_previous=_keeps_previous(rollout, spec, now),
                    warm=0 if ends else warm_count(self._store, key, spec, self._can_pause),
                    deployed_at=stored.at,
                )
            )
        return found

    def _adopted(
        self,
        listed: Mapping[str, ObservedReplica],
        taken: set[str],
        now: float,
        stopping: frozenset[str],
    ) -> list[DesiredService]:
        """Return one service for each that the labels of others' containers describe."""
        self._bad_labels = {n: text for n, text in self._bad_labels.items() if n in listed}
        groups: dict[str, list[tuple[Service, ObservedReplica]]] = {}
        copies: dict[str, list[ObservedReplica]] = {}
        for name in sorted(listed):
            seen = listed[name]
            if seen.managed:
                if labels.CLONE_OF in seen.labels:
                    copies.setdefault(f"{seen.project}/{seen.service}", []).append(seen)
                continue
            described = self._describe(seen)
            if described and f"{described[0]}/{described[1].name}" not in taken:
                key = f"{described[0]}/{described[1].name}"
                groups.setdefault(key, []).append((described[1], seen))
        return [
            self._adopt(key, group, copies.get(key, []), now, stopping)
            for key, group in groups.items()
        ]

    def _adopt(
        self,
        key: str,
        group: Sequence[tuple[Service, ObservedReplica]],
        copies: Sequence[ObservedReplica],
        now: float,
        stopping: frozenset[str],
    ) -> DesiredService:
        """Return the service of a group of others' containers and meshd's `copies` of them.

        If all stopped with an orderly exit code, or long ago, or together with their copies, the
        service is down on purpose. While others stop some of them, meshd starts no replacement:
        Compose does not know the copy, which would keep up a service that Compose takes down.
        The newest container gives the spec, and is the template of copies: a tool that replaces
        containers by another version creates that one last.
        """
        running = [pair for pair in group if pair[1].state in _RUNS]
        copied = sum(copy.state in _RUNS for copy in copies)
        crashed = any(
            seen.exit_code not in _ORDERLY and seen.finished_at + CRASH_SEEN > now
            for _, seen in group
        )
        spec, template = max(running or group, key=lambda pair: pair[1].created_at)
        up = self._copies_allowed and (running or copied or (crashed and not copies))
        count = max(desired_count(self._store, key, spec, now), len(running))
        if any(_is_stopped(seen, now) for _, seen in group) or any(
            copy.state is ReplicaState.STOPPING and copy.name not in stopping for copy in copies
        ):
            count = min(count, len(running) + copied)
        return DesiredService(
            project=key.partition("/")[0],
            spec=spec,
            revision=template.revision,
            desired=count if up else 0,
            adopted=True,
            template=template.name,
        )

    def _describe(self, seen: ObservedReplica) -> tuple[str, Service] | None:
        """Return the project and service that a container's labels describe; None if the labels
        are invalid."""
        known = self._described.get(seen.name)
        if known is not None and known[0] == seen.labels:
            return known[1]
        described: tuple[str, Service] | None = None
        self._bad_labels.pop(seen.name, None)
        try:
            described = labels.adopt(seen.name, seen.labels, "", (seen.port,) if seen.port else ())
        except SpecError as error:
            self._bad_labels[seen.name] = f"left alone: {error}"
        if len(self._described) > DESCRIBED:
            self._described.clear()
        self._described[seen.name] = (seen.labels, described)
        return described


def warm_count(store: Store, key: str, spec: Service, can_pause: bool) -> int:
    """Return the number of warm (paused) replicas: the spec's, or the one that the autoscaler
    learned; 0 if the runtime cannot pause, or if no additional replica may hold the data."""
    scale = spec.mesh.scale
    if scale is None or not can_pause:
        return 0
    if spec.data_mount is not None and spec.update_order == "stop-first":
        return 0  # a paused replica would hold the data in addition
    learned = store.scaling.get(key)
    return scale.warm if scale.warm != "auto" else learned.warm if learned else 0


def desired_count(store: Store, key: str, spec: Service, now: float) -> int:
    """Return the number of replicas desired of a service: the override, the autoscaler's number,
    or the spec's."""
    override = store.override(key, now)
    by_hand = override.replicas if override else None
    scaling = store.scaling.get(key)
    return desired_replicas(spec, by_hand, scaling.desired if scaling else None)


def spread_globally(service: DesiredService, nodes: Sequence[Node], before: int) -> DesiredService:
    """Return a service with `mode: global` with one replica for each node; with as many as `before`
    while no node is known. A node has room for one, so that it leaves before its successor
    starts, unless the file says otherwise."""
    spec = service.spec
    if not spec.is_global or not service.desired:
        return service
    count = count_global(spec, nodes) if nodes else max(before, 1)
    order = service.order or spec.update.order or "stop-first"
    return msgspec.structs.replace(service, desired=count, order=order)


def _count_listed(listed: Mapping[str, ObservedReplica], service: DesiredService) -> int:
    """Return how many replicas of a service with `mode: global` run."""
    if not service.spec.is_global:
        return 0
    return sum(
        f"{seen.project}/{seen.service}" == service.key and seen.state in _RUNS
        for seen in listed.values()
    )


def _order_of_return(deployed: Service, previous: Service) -> UpdateOrder:
    """Return the order in which replicas of `previous` replace those of the failed `deployed`.

    The file that was deployed last decides. A spec that was stored before the order had a default
    by mounts does not.
    """
    if deployed.update.order is not None:
        return deployed.update.order
    holds_data = deployed.data_mount is not None or previous.data_mount is not None
    return "stop-first" if holds_data else "start-first"


def _ended(rollout: Rollout) -> Rollout:
    """The rollout of a service whose project is being taken down."""
    return msgspec.structs.replace(rollout, state=RolloutState.DONE)


def _keeps_previous(rollout: Rollout, spec: Service, now: float) -> bool:
    """Whether the replaced replicas still run, so that an undo takes effect at once."""
    settings = spec.mesh.rollout
    recent = rollout.stage_since + settings.keep > now
    return rollout.is_done and settings.strategy == "blue-green" and recent


def _is_stopped(seen: ObservedReplica, now: float) -> bool:
    """Whether others stop this container of theirs, or did so a moment ago."""
    if seen.state is ReplicaState.STOPPING:
        return True
    ended = seen.state is ReplicaState.EXITED and seen.exit_code in _ORDERLY
    return ended and seen.finished_at + STOP_SEEN > now


def _copied(listed: Mapping[str, ObservedReplica]) -> set[str]:
    """Return the projects with copies of adopted containers. meshd must end these copies, also
    after their template is gone."""
    return {
        seen.project for seen in listed.values() if seen.managed and labels.CLONE_OF in seen.labels
    }


def _effective(services: Sequence[DesiredService]) -> tuple[Project, ...]:
    groups: dict[str, list[Service]] = {}
    for service in services:
        groups.setdefault(service.project, []).append(service.spec)
    return tuple(
        Project.model_construct(name=name, services=tuple(specs)) for name, specs in groups.items()
    )
