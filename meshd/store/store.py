"""The desired state: projects, revisions, rollouts, overrides and the autoscaler's numbers.

Every change is one transaction. What is read often is kept in memory as well; this process is
the only writer, which the lock file sees to.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from meshd.model.rollout import (
    Override,
    Rollout,
    RolloutState,
    Scaling,
    StoredProject,
    next_rollout,
)
from meshd.spec.changes import changed
from meshd.spec.model import Project, Service
from meshd.store import releases
from meshd.store.file import StateFile

REVISIONS_KEPT: Final = 20
"""Revisions kept per service, for `meshd rollout undo`."""


class Store(StateFile):
    """The desired state, in the file and in memory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.projects: dict[str, StoredProject] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.overrides: dict[str, Override] = {}
        self.scaling: dict[str, Scaling] = {}
        self._revisions: dict[tuple[str, str], Service] = {}

    def open(self) -> None:
        """Take the state and read it. Raises Held, TooNew, sqlite3.DatabaseError."""
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
        for project, service, *rest in self.database.execute("SELECT * FROM rollout"):
            self.rollouts[f"{project}/{service}"] = Rollout(*rest)
        for project, service, *rest in self.database.execute("SELECT * FROM override"):
            self.overrides[f"{project}/{service}"] = Override(*rest)
        rows = self.database.execute("SELECT project, service, desired, state, warm FROM scaling")
        for project, service, desired, state, warm in rows:
            self.scaling[f"{project}/{service}"] = Scaling(desired, state, warm)

    def deploy(
        self,
        project: Project,
        fingerprints: Mapping[str, str],
        who: str,
        plan: str,
        now: float,
        how: Literal["deploy", "undo"] = "deploy",
    ) -> Sequence[str]:
        """Make `project` the desired state; `fingerprints` names the revision of each service.
        The names of the services that a rollout begins for."""
        begun: dict[str, Rollout] = {}
        for service in project.services:
            old = self.rollouts.get(f"{project.name}/{service.name}")
            new = next_rollout(old, fingerprints[service.name], now)
            if new is not None:
                begun[service.name] = new
        known = {service.name for service in project.services}
        with self.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO project VALUES (?, ?, ?, ?, 0, ?)",
                (project.name, project.model_dump_json(), who, now, plan),
            )
            for service in project.services:
                version = (project.name, service.name, fingerprints[service.name])
                database.execute(
                    "INSERT INTO revision VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET spec = excluded.spec",
                    (*version, service.model_dump_json(), who, now),
                )
            for name, rollout in begun.items():
                number = releases.begin(
                    database, (project.name, name), rollout.revision, rollout.previous, how, who,
                    now, self._changed(project, name),
                )  # fmt: skip
                begun[name] = msgspec.structs.replace(
                    rollout, number=number, stage_since=now, swift=how == "undo"
                )
                self._write(database, f"{project.name}/{name}", begun[name])
            dropped = self._drop_services(database, project.name, known)
        self._forget_services(dropped)
        self._revisions.clear()
        self.projects[project.name] = StoredProject(project, who, now, False, plan)
        self.rollouts.update({f"{project.name}/{name}": r for name, r in begun.items()})
        return tuple(begun)

    def _changed(self, project: Project, name: str) -> str:
        """What the service changes against what runs of it."""
        rollout = self.rollouts.get(f"{project.name}/{name}")
        before = self.revision(f"{project.name}/{name}", rollout.effective) if rollout else None
        return changed(before, project.service(name))

    def _write(self, database: sqlite3.Connection, key: str, rollout: Rollout) -> None:
        values = (*key.split("/", 1), *msgspec.structs.astuple(rollout))
        database.execute(
            f"INSERT OR REPLACE INTO rollout VALUES ({', '.join('?' * len(values))})",  # noqa: S608
            values,
        )

    def _drop_services(
        self, database: sqlite3.Connection, project: str, known: set[str]
    ) -> list[str]:
        """Delete what is stored of a project's other services; their keys."""
        prefix = f"{project}/"
        kept = self.rollouts.keys() | self.overrides.keys() | self.scaling.keys()
        gone = [k for k in kept if k.startswith(prefix) and k.removeprefix(prefix) not in known]
        for table in ("trial", "rollout", "override", "scaling"):
            database.executemany(
                f"DELETE FROM {table} WHERE project = ? AND service = ?",  # noqa: S608
                [key.split("/", 1) for key in gone],
            )
        return gone

    def _forget_services(self, keys: Iterable[str]) -> None:
        """Once their rows are gone for good."""
        for key in keys:
            self.rollouts.pop(key, None)
            self.overrides.pop(key, None)
            self.scaling.pop(key, None)

    def settle(self, key: str, outcome: RolloutState, cause: str, now: float) -> None:
        """End the rollout of a service."""
        rollout = msgspec.structs.replace(
            self.rollouts[key], state=outcome, cause=cause, since=now, by_hand=False
        )
        project, _, service = key.partition("/")
        where = (project, service)
        with self.transaction() as database:
            self._write(database, key, rollout)
            releases.end(database, where, rollout.number, outcome, cause, now)
            database.execute("DELETE FROM trial WHERE project = ? AND service = ?", where)
            database.execute(
                "DELETE FROM revision WHERE project = ? AND service = ? AND fingerprint NOT IN "
                "(?, ?) AND fingerprint NOT IN (SELECT fingerprint FROM revision "
                "WHERE project = ? AND service = ? ORDER BY at DESC LIMIT ?)",
                (*where, rollout.revision, rollout.previous, *where, REVISIONS_KEPT),
            )
        self.rollouts[key] = rollout

    def advance(self, key: str, stage: int, now: float) -> None:
        """So many stages of a service's rollout are passed."""
        rollout = msgspec.structs.replace(self.rollouts[key], stage=stage, stage_since=now)
        with self.transaction() as database:
            self._write(database, key, rollout)
        self.rollouts[key] = rollout

    def pause(self, key: str, cause: str, now: float) -> None:
        """Leave a rollout as it is until `resume`."""
        self._hold(key, "paused", cause, now, by_hand=True)

    def resume(self, key: str, now: float) -> None:
        """Go on with a rollout at the stage that it was paused in."""
        self._hold(key, "rolling", "", now, by_hand=False)

    def _hold(
        self, key: str, state: RolloutState, cause: str, now: float, *, by_hand: bool
    ) -> None:
        rollout = msgspec.structs.replace(
            self.rollouts[key], state=state, cause=cause, since=now, by_hand=by_hand
        )
        project, _, service = key.partition("/")
        with self.transaction() as database:
            self._write(database, key, rollout)
            releases.end(database, (project, service), rollout.number, state, cause, 0.0)
        self.rollouts[key] = rollout

    def revision(self, key: str, fingerprint: str) -> Service | None:
        """The spec of one revision of a service; None when it was forgotten."""
        found = self._revisions.get((key, fingerprint))
        if found is None:
            project, _, service = key.partition("/")
            row = self.database.execute(
                "SELECT spec FROM revision WHERE project = ? AND service = ? AND fingerprint = ?",
                (project, service, fingerprint),
            ).fetchone()
            if row is None:
                return None
            found = self._revisions[key, fingerprint] = Service.model_validate_json(row[0])
        return found

    def leave(self, project: str) -> None:
        """The project is to be taken down."""
        with self.transaction() as database:
            database.execute("UPDATE project SET leaving = 1 WHERE name = ?", (project,))
        self.projects[project] = msgspec.structs.replace(self.projects[project], leaving=True)

    def forget(self, project: str) -> None:
        """Nothing of the project is left; its history goes too."""
        with self.transaction() as database:
            database.execute("DELETE FROM project WHERE name = ?", (project,))
            database.execute("DELETE FROM revision WHERE project = ?", (project,))
            database.execute("DELETE FROM release WHERE project = ?", (project,))
            dropped = self._drop_services(database, project, set())
        self._forget_services(dropped)
        self.projects.pop(project, None)
        self._revisions.clear()

    def override(self, key: str, now: float) -> Override | None:
        """The number set by hand for a service, while it counts."""
        found = self.overrides.get(key)
        return found if found is not None and found.holds(now) else None

    def set_override(self, key: str, override: Override | None) -> None:
        """Set the number of replicas by hand, or take that back."""
        project, _, service = key.partition("/")
        with self.transaction() as database:
            if override is None:
                database.execute(
                    "DELETE FROM override WHERE project = ? AND service = ?", (project, service)
                )
            else:
                database.execute(
                    "INSERT OR REPLACE INTO override VALUES (?, ?, ?, ?)",
                    (project, service, override.replicas, override.until),
                )
        if override is None:
            self.overrides.pop(key, None)
        else:
            self.overrides[key] = override

    def set_scaling(self, values: Mapping[str, tuple[int, object, int]], now: float) -> None:
        """Keep the autoscaler's numbers (service key → number, JSON-able state, warm pool)."""
        kept: dict[str, Scaling] = {}
        with self.transaction() as database:
            for key, (desired, state, warm) in values.items():
                project, _, service = key.partition("/")
                text = json.dumps(state)
                database.execute(
                    "INSERT OR REPLACE INTO scaling VALUES (?, ?, ?, ?, ?, ?)",
                    (project, service, desired, text, now, warm),
                )
                kept[key] = Scaling(desired, text, warm)
        self.scaling.update(kept)
