"""The desired state: projects, revisions, rollouts, overrides and the autoscaler's numbers.

Owned by the control process, which is the only writer (the lock file makes sure of that). Every
change is one transaction. `Store` also keeps in memory what is read often. The other logs in this
package share its file.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from meshd.model.release import ReleaseOutcome
from meshd.model.rollout import (
    ROLLOUT_TRANSITIONS,
    Override,
    Rollout,
    RolloutState,
    Scaling,
    StoredProject,
    next_rollout,
)
from meshd.model.service_key import ServiceKey, service_key, split_key
from meshd.spec.changes import describe_changes
from meshd.spec.model import Project, Service
from meshd.store import releases
from meshd.store.file import StateFile

REVISIONS_KEPT: Final = 20
"""Revisions of a service that are kept besides the current and the previous one."""
_ROLLOUT_COLUMNS: Final = (
    "project, service, revision, previous, state, since, cause, release_number, stage, "
    "stage_since, skips_stages"
)


class Store(StateFile):
    """The desired state, in the file and in memory.

    - `projects`: by name.
    - `rollouts`, `overrides`, `scaling`: by service key.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.projects: dict[str, StoredProject] = {}
        self.rollouts: dict[ServiceKey, Rollout] = {}
        self.overrides: dict[ServiceKey, Override] = {}
        self.scaling: dict[ServiceKey, Scaling] = {}
        self._revisions: dict[tuple[ServiceKey, str], Service] = {}

    def open(self) -> None:
        """Lock the file and read it.

        Raises StateLocked, SchemaTooNew or sqlite3.DatabaseError.
        """
        super().open()
        try:
            self._read_all()
        except BaseException:
            self.close()
            raise

    def _read_all(self) -> None:
        for name, spec, who, at, leaving, plan in self.database.execute(
            "SELECT name, spec, who, at, leaving, plan FROM project"
        ):
            project = Project.model_validate_json(spec)
            self.projects[name] = StoredProject(project, who, at, bool(leaving), plan)
        for row in self.database.execute(f"SELECT {_ROLLOUT_COLUMNS} FROM rollout"):  # noqa: S608
            self.rollouts[service_key(row[0], row[1])] = _rollout_of(row)
        rows = self.database.execute("SELECT project, service, replicas, until FROM override")
        for name, service, replicas, until in rows:
            self.overrides[service_key(name, service)] = Override(replicas, until)
        rows = self.database.execute("SELECT project, service, desired, state, warm FROM scaling")
        for name, service, desired, state, warm in rows:
            self.scaling[service_key(name, service)] = Scaling(desired, state, warm)

    def forget_future(self, now: float) -> None:
        """Let rollouts count from `now` if they are stored with a later time: the clock was ahead
        then, and a rollout would stand still until that time. In memory; the next change of the
        rollout is stored."""
        for key, rollout in self.rollouts.items():
            if max(rollout.since, rollout.stage_since) > now:
                self.rollouts[key] = msgspec.structs.replace(
                    rollout,
                    since=min(rollout.since, now),
                    stage_since=min(rollout.stage_since, now),
                )

    def deploy(
        self,
        project: Project,
        fingerprints: Mapping[str, str],
        who: str,
        plan: str,
        now: float,
        how: Literal["deploy", "undo"] = "deploy",
    ) -> Sequence[str]:
        """Make `project` the desired state and return the services that begin a rollout.

        `fingerprints` maps each service's name to its revision.
        """
        begun: dict[str, Rollout] = {}
        for service in project.services:
            old = self.rollouts.get(service_key(project.name, service.name))
            new = next_rollout(old, fingerprints[service.name], now)
            if new is not None:
                begun[service.name] = new
        known = {service.name for service in project.services}
        with self.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO project (name, spec, who, at, leaving, plan) "
                "VALUES (?, ?, ?, ?, 0, ?)",
                (project.name, project.model_dump_json(), who, now, plan),
            )
            for service in project.services:
                version = (project.name, service.name, fingerprints[service.name])
                database.execute(
                    "INSERT INTO revision (project, service, fingerprint, spec, who, at) "
                    "VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET spec = excluded.spec",
                    (*version, service.model_dump_json(), who, now),
                )
            for name, rollout in begun.items():
                number = releases.begin(
                    database, (project.name, name), rollout.revision, rollout.previous, how, who,
                    now, self._changes(project, name),
                )  # fmt: skip
                begun[name] = msgspec.structs.replace(
                    rollout, release_number=number, stage_since=now, skips_stages=how == "undo"
                )
                self._write(database, service_key(project.name, name), begun[name])
            dropped = self._drop_services(database, project.name, known)
        self._forget_services(dropped)
        self._revisions.clear()
        self.projects[project.name] = StoredProject(project, who, now, False, plan)
        self.rollouts.update({service_key(project.name, name): r for name, r in begun.items()})
        return tuple(begun)

    def _changes(self, project: Project, name: str) -> str:
        """The differences between a service and its running revision, as text."""
        key = service_key(project.name, name)
        rollout = self.rollouts.get(key)
        before = self.revision(key, rollout.effective_revision) if rollout else None
        return describe_changes(before, project.service(name))

    def _write(self, database: sqlite3.Connection, key: ServiceKey, rollout: Rollout) -> None:
        database.execute(
            f"INSERT OR REPLACE INTO rollout ({_ROLLOUT_COLUMNS}) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *split_key(key),
                rollout.revision,
                rollout.previous,
                rollout.state.value,
                rollout.since,
                rollout.cause,
                rollout.release_number,
                rollout.stage,
                rollout.stage_since,
                rollout.skips_stages,
            ),
        )

    def _drop_services(
        self, database: sqlite3.Connection, project: str, known: set[str]
    ) -> list[ServiceKey]:
        """Delete the rows of a project's services that are not `known`, and return their keys."""
        prefix = f"{project}/"
        kept = self.rollouts.keys() | self.overrides.keys() | self.scaling.keys()
        gone = [k for k in kept if k.startswith(prefix) and k.removeprefix(prefix) not in known]
        for table in ("canary_analysis", "rollout", "override", "scaling"):
            database.executemany(
                f"DELETE FROM {table} WHERE project = ? AND service = ?",  # noqa: S608
                [split_key(key) for key in gone],
            )
        return gone

    def _forget_services(self, keys: Iterable[ServiceKey]) -> None:
        """Drop from memory the services whose rows were deleted."""
        for key in keys:
            self.rollouts.pop(key, None)
            self.overrides.pop(key, None)
            self.scaling.pop(key, None)

    def finish(self, key: ServiceKey, state: RolloutState, cause: str, now: float) -> None:
        """End the rollout of a service in `state`. Raises ValueError if it cannot."""
        rollout = _move(self.rollouts[key], state, cause, now)
        where = split_key(key)
        with self.transaction() as database:
            self._write(database, key, rollout)
            releases.end(
                database, where, rollout.release_number, ReleaseOutcome(state.word), cause, now
            )
            database.execute("DELETE FROM canary_analysis WHERE project = ? AND service = ?", where)
            database.execute(
                "DELETE FROM revision WHERE project = ? AND service = ? AND fingerprint NOT IN "
                "(?, ?) AND fingerprint NOT IN (SELECT fingerprint FROM revision "
                "WHERE project = ? AND service = ? ORDER BY at DESC LIMIT ?)",
                (*where, rollout.revision, rollout.previous, *where, REVISIONS_KEPT),
            )
        self.rollouts[key] = rollout

    def advance(self, key: ServiceKey, stage: int, now: float) -> None:
        """Store that `stage` stages of a service's rollout are completed."""
        rollout = msgspec.structs.replace(self.rollouts[key], stage=stage, stage_since=now)
        with self.transaction() as database:
            self._write(database, key, rollout)
        self.rollouts[key] = rollout

    def pause(self, key: ServiceKey, cause: str, now: float) -> None:
        """Pause a rollout on a user's request. Raises ValueError if it is not rolling."""
        self._hold(key, RolloutState.PAUSED, cause, now)

    def resume(self, key: ServiceKey, now: float) -> None:
        """Resume a rollout in the stage in which it was paused or halted."""
        self._hold(key, RolloutState.ROLLING, "", now)

    def _hold(self, key: ServiceKey, state: RolloutState, cause: str, now: float) -> None:
        rollout = _move(self.rollouts[key], state, cause, now)
        with self.transaction() as database:
            self._write(database, key, rollout)
            releases.end(
                database,
                split_key(key),
                rollout.release_number,
                ReleaseOutcome(state.word),
                cause,
                0.0,
            )
        self.rollouts[key] = rollout

    def revision(self, key: ServiceKey, fingerprint: str) -> Service | None:
        """Return the spec of one revision of a service; None if it is not kept any more."""
        found = self._revisions.get((key, fingerprint))
        if found is None:
            row = self.database.execute(
                "SELECT spec FROM revision WHERE project = ? AND service = ? AND fingerprint = ?",
                (*split_key(key), fingerprint),
            ).fetchone()
            if row is None:
                return None
            found = self._revisions[key, fingerprint] = Service.model_validate_json(row[0])
        return found

    def leave(self, project: str) -> None:
        """Mark a project to be taken down."""
        with self.transaction() as database:
            database.execute("UPDATE project SET leaving = 1 WHERE name = ?", (project,))
        self.projects[project] = msgspec.structs.replace(self.projects[project], leaving=True)

    def forget(self, project: str) -> None:
        """Delete a project that was taken down, with its history."""
        with self.transaction() as database:
            database.execute("DELETE FROM project WHERE name = ?", (project,))
            database.execute("DELETE FROM revision WHERE project = ?", (project,))
            database.execute("DELETE FROM release WHERE project = ?", (project,))
            dropped = self._drop_services(database, project, set())
        self._forget_services(dropped)
        self.projects.pop(project, None)
        self._revisions.clear()

    def override(self, key: ServiceKey, now: float) -> Override | None:
        """Return the number of replicas that a user set; None if none is in force."""
        found = self.overrides.get(key)
        return found if found is not None and found.holds(now) else None

    def set_override(self, key: ServiceKey, override: Override | None) -> None:
        """Set the number of replicas on a user's request; None removes it."""
        where = split_key(key)
        with self.transaction() as database:
            if override is None:
                database.execute("DELETE FROM override WHERE project = ? AND service = ?", where)
            else:
                database.execute(
                    "INSERT OR REPLACE INTO override (project, service, replicas, until) "
                    "VALUES (?, ?, ?, ?)",
                    (*where, override.replicas, override.until),
                )
        if override is None:
            self.overrides.pop(key, None)
        else:
            self.overrides[key] = override

    def set_scaling(self, values: Mapping[ServiceKey, tuple[int, object, int]], now: float) -> None:
        """Store the autoscaler's results: desired replicas, JSON-able state, warm replicas."""
        kept: dict[ServiceKey, Scaling] = {}
        with self.transaction() as database:
            for key, (desired, state, warm) in values.items():
                text = json.dumps(state)
                database.execute(
                    "INSERT OR REPLACE INTO scaling (project, service, desired, state, at, warm) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (*split_key(key), desired, text, now, warm),
                )
                kept[key] = Scaling(desired, text, warm)
        self.scaling.update(kept)


def _rollout_of(row: tuple[str, str, str, str, str, float, str, int, int, float, int]) -> Rollout:
    """The rollout in a row of `_ROLLOUT_COLUMNS`."""
    _, _, revision, previous, state, since, cause, number, stage, stage_since, skips_stages = row
    return Rollout(
        revision=revision,
        previous=previous,
        state=RolloutState(state),
        since=since,
        cause=cause,
        release_number=number,
        stage=stage,
        stage_since=stage_since,
        skips_stages=bool(skips_stages),
    )


def _move(rollout: Rollout, state: RolloutState, cause: str, now: float) -> Rollout:
    """Return the rollout in another state. Raises ValueError if the table does not allow it."""
    if state not in ROLLOUT_TRANSITIONS[rollout.state]:
        raise ValueError(f"a rollout cannot go from {rollout.state.value} to {state.value}")
    return msgspec.structs.replace(rollout, state=state, cause=cause, since=now)


def read_stored_projects(state: Path) -> list[Project]:
    """Return the projects in a state directory that are not being taken down, whether its daemon
    runs or not. Raises sqlite3.Error."""
    file = state / "meshd.db"
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT spec FROM project WHERE NOT leaving ORDER BY name").fetchall()
    return [Project.model_validate_json(spec) for (spec,) in rows]
