"""The desired state: projects, revisions, rollouts, overrides and the autoscaler's numbers.

Every change is one transaction. What is read often is kept in memory as well; this process is
the only writer, which the lock file sees to.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from meshd.spec.changes import changed
from meshd.spec.model import Project, Service
from meshd.store import presence, releases
from meshd.store.lock import StateLock
from meshd.store.schema import migrate

REVISIONS_KEPT: Final = 20
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


class CannotStore(sqlite3.OperationalError):
    """The disk is full, read-only or gone; what was to be stored is as it was before."""


class Store:
    """The SQLite file `meshd.db` in the state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "meshd.db"
        self.projects: dict[str, StoredProject] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.overrides: dict[str, Override] = {}
        self.scaling: dict[str, Scaling] = {}
        self._revisions: dict[tuple[str, str], Service] = {}
        self._lock = StateLock(directory / presence.LOCK)
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Take the state. Raises Held, TooNew, sqlite3.DatabaseError."""
        self._lock.acquire()
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None)
            self.path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            migrate(self._database)
            self._read_all()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the state; harmless when not open."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    @property
    def database(self) -> sqlite3.Connection:
        """The open file."""
        if self._database is None:
            raise RuntimeError("the store is not open")
        return self._database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises CannotStore."""
        try:
            self.database.execute("BEGIN IMMEDIATE")
            yield self.database
            self.database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise CannotStore(
                f"the state in {self.path.parent} cannot be written: {error}; nothing was changed"
            ) from error
        finally:
            if self.database.in_transaction:  # with a full disk it may have ended by itself
                self.database.execute("ROLLBACK")

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

    def next_epoch(self) -> int:
        """A number above every one given before."""
        with self.transaction() as database:
            row = database.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            epoch = int(row[0]) + 1 if row else 1
            database.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
        return epoch

    def instance(self) -> str:
        """The id of this state, by which meshes on one runtime tell each other apart; made on
        first use."""
        row = self.database.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        if row:
            return str(row[0])
        made = secrets.token_hex(6)
        with self.transaction() as database:
            database.execute("INSERT INTO meta VALUES ('instance', ?)", (made,))
        return made

    def secret(self) -> bytes:
        """The key that replicas' credentials are derived from; made on first use."""
        row = self.database.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
        if row:
            return bytes(row[0])
        made = secrets.token_bytes(32)
        with self.transaction() as database:
            database.execute("INSERT INTO meta VALUES ('secret', ?)", (made,))
        return made

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
