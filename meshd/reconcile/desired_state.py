"""What is wanted now: the store's projects, and services adopted from what runs."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import Desired, DesiredService, desired_replicas
from meshd.model.rollout import Rollout, RolloutState, StoredProject
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.publish.compile import route_conflicts
from meshd.spec import labels
from meshd.spec.errors import SpecError
from meshd.spec.model import Project, Service
from meshd.store.store import Store

_RUNS = (ReplicaState.RUNNING, ReplicaState.PAUSED)
CRASH_SEEN: Final = 10.0
STOP_SEEN: Final = 10.0
"""Seconds for which others' stopping of one container may go on to be that of all; Compose's
own default for how long a stop may take."""
_ORDERLY = (None, 0, 143)
"""Exit codes of a container that was told to stop: none yet, its own choice, SIGTERM's."""


class DesiredStateBuilder:
    """Puts `Desired` together from the store; keeps what does not change between passes.
    `pauses` tells whether the runtime can."""

    def __init__(self, store: Store, pauses: bool = True) -> None:
        self._pauses = pauses
        self.ending = False
        """Whether this mesh takes its leave: then no copies of others' containers are wanted."""
        self.elsewhere: frozenset[str] = frozenset()
        """Projects stored here that another mesh holds: nothing of them is wanted here."""
        self._store = store
        self._read: dict[str, tuple[object, tuple[str, Service] | None]] = {}
        self._desired = Desired()
        self._by_key: dict[str, DesiredService] = {}
        self._projects: tuple[Project, ...] = ()
        self._wrong: dict[str, str] = {}
        self._conflicts: list[str] = []

    def desired(
        self,
        listed: Mapping[str, ObservedReplica],
        now: float,
        ours: frozenset[str] = frozenset(),
    ) -> Desired:
        """What is wanted at `now`; the same object while nothing changed. `ours` are the
        replicas that we are stopping ourselves."""
        services: list[DesiredService] = []
        here = {n: p for n, p in self._store.projects.items() if n not in self.elsewhere}
        for name, stored in here.items():
            services += self._stored(name, stored, now)
        taken = {service.key for service in services}
        services += self._adopted(listed, taken, now, ours)
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

    @property
    def problems(self) -> frozenset[str]:
        """What is wrong with what others started, as of the last `desired`: labels that say
        nothing clear, and routes that are taken. (A deployment is refused for such.)"""
        return frozenset([*self._wrong.values(), *self._conflicts])

    def service(self, key: str) -> DesiredService | None:
        """One service by key, as of the last `desired`."""
        return self._by_key.get(key)

    def project(self, name: str) -> Project | None:
        """A stored project as it was deployed."""
        stored = self._store.projects.get(name)
        return stored.project if stored else None

    def effective_projects(self) -> Sequence[Project]:
        """The projects as they are to be served: rolled-back services at their good revision."""
        return self._projects

    def count(self, key: str, spec: Service, now: float) -> int:
        """Replicas wanted of one service."""
        override = self._store.override(key, now)
        by_hand = override.replicas if override else None
        scaling = self._store.scaling.get(key)
        return desired_replicas(spec, by_hand, scaling.desired if scaling else None)

    def _warm(self, key: str, spec: Service) -> int:
        """How many to keep paused, where the runtime can: as said, or as learned."""
        scale = spec.mesh.scale
        if scale is None or not self._pauses:
            return 0
        learned = self._store.scaling.get(key)
        return scale.warm if scale.warm != "auto" else learned.warm if learned else 0

    def _stored(self, name: str, stored: StoredProject, now: float) -> list[DesiredService]:
        found = []
        for spec in stored.project.services:
            key = f"{name}/{spec.name}"
            rollout = self._store.rollouts[key]
            revision = rollout.effective_revision
            settings = spec.mesh.rollout
            if revision != rollout.revision:
                spec = self._store.revision(key, revision) or spec
            found.append(
                DesiredService(
                    project=name,
                    spec=spec,
                    revision=revision,
                    count=0 if stored.leaving else self.count(key, spec, now),
                    rollout=_ended(rollout) if stored.leaving else rollout,
                    rollout_settings=settings,
                    keeps_previous=_keeps_previous(rollout, spec, now),
                    warm=0 if stored.leaving else self._warm(key, spec),
                )
            )
        return found

    def _adopted(
        self,
        listed: Mapping[str, ObservedReplica],
        taken: set[str],
        now: float,
        ours: frozenset[str],
    ) -> list[DesiredService]:
        """One service for each that running containers of others describe; the first
        container by name says how, and is what more are copied from."""
        self._wrong = {name: text for name, text in self._wrong.items() if name in listed}
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
            self._adopt(key, group, copies.get(key, []), now, ours) for key, group in groups.items()
        ]

    def _adopt(
        self,
        key: str,
        group: Sequence[tuple[Service, ObservedReplica]],
        copies: Sequence[ObservedReplica],
        now: float,
        ours: frozenset[str],
    ) -> DesiredService:
        """A service made of others' containers and our `copies` of them. Where all were
        stopped in an orderly way, or long ago, or together with their copies, it is meant to
        be down. While others are stopping some, none is started in their place: a copy that
        comes now is one that Compose does not know of, and would keep up what it takes down."""
        running = [pair for pair in group if pair[1].state in _RUNS]
        copied = sum(copy.state in _RUNS for copy in copies)
        crashed = any(
            seen.exit_code not in _ORDERLY and seen.finished_at + CRASH_SEEN > now
            for _, seen in group
        )
        spec, template = (running or group)[0]
        up = not self.ending and (running or copied or (crashed and not copies))
        count = max(self.count(key, spec, now), len(running))
        if any(_is_stopped(seen, now) for _, seen in group) or any(
            copy.state is ReplicaState.STOPPING and copy.name not in ours for copy in copies
        ):
            count = min(count, len(running) + copied)
        return DesiredService(
            project=key.partition("/")[0],
            spec=spec,
            revision=template.revision,
            count=count if up else 0,
            adopted=True,
            template=template.name,
        )

    def _describe(self, seen: ObservedReplica) -> tuple[str, Service] | None:
        """The project and service that a container's labels describe; None when they are
        wrong."""
        known = self._read.get(seen.name)
        if known is not None and known[0] == seen.labels:
            return known[1]
        described: tuple[str, Service] | None = None
        self._wrong.pop(seen.name, None)
        try:
            described = labels.adopt(seen.name, seen.labels, "", (seen.port,) if seen.port else ())
        except SpecError as error:
            self._wrong[seen.name] = f"left alone: {error}"
        if len(self._read) > 4096:
            self._read.clear()
        self._read[seen.name] = (seen.labels, described)
        return described


def _ended(rollout: Rollout) -> Rollout:
    """The rollout of a service whose project is being taken down."""
    return msgspec.structs.replace(rollout, state=RolloutState.DONE)


def _keeps_previous(rollout: Rollout, spec: Service, now: float) -> bool:
    """Whether the replaced replicas still run, so that an undo takes effect at once."""
    settings = spec.mesh.rollout
    recent = rollout.stage_since + settings.keep > now
    return rollout.is_done and settings.strategy == "blue-green" and recent


def _is_stopped(seen: ObservedReplica, now: float) -> bool:
    """Whether others are stopping this container of theirs, or did so just now."""
    if seen.state is ReplicaState.STOPPING:
        return True
    ended = seen.state is ReplicaState.EXITED and seen.exit_code in _ORDERLY
    return ended and seen.finished_at + STOP_SEEN > now


def _copied(listed: Mapping[str, ObservedReplica]) -> set[str]:
    """The projects that hold copies of adopted containers: those are ours to end, also when
    what they were copied from is gone."""
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
