"""The log of one-off jobs with their last lines, and the last check of each schedule: bounded,
kept over restarts. Written by `meshd.jobs`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.job import Job
from meshd.store.store import Store

KEPT: Final = 20
"""Number of ended jobs kept per service, and per schedule unless it sets another number."""


class JobLog:
    """The stored jobs by id. Everything is written at once: a job is stored before it starts."""

    def __init__(self, store: Store) -> None:
        self.jobs: dict[str, Job] = {}
        self._store = store
        self._looked: dict[tuple[str, str, str], float] = {}

    def open(self) -> None:
        """Read what is stored, after the store was opened."""
        database = self._store.database
        for (body,) in database.execute("SELECT body FROM job ORDER BY at"):
            job = msgspec.json.decode(body, type=Job)
            self.jobs[job.id] = job
        for project, service, name, at in database.execute("SELECT * FROM schedule"):
            self._looked[project, service, name] = at

    def put(self, job: Job, lines: Sequence[str] | None = None, keep: int = KEPT) -> None:
        """Store a job; once it has ended also its last `lines`, and delete the oldest of its
        kind beyond `keep`."""
        gone = self._surplus(job, keep) if job.is_over else []
        with self._store.transaction() as database:
            database.execute(
                "INSERT INTO job (id, project, at, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET body = excluded.body",
                (job.id, job.project, job.at, msgspec.json.encode(job).decode()),
            )
            if lines is not None:
                text = "\n".join(lines)
                database.execute("UPDATE job SET lines = ? WHERE id = ?", (text, job.id))
            database.executemany("DELETE FROM job WHERE id = ?", [(id,) for id in gone])
        self.jobs[job.id] = job
        for id in gone:
            del self.jobs[id]

    def _surplus(self, job: Job, keep: int) -> list[str]:
        """Return the oldest ended jobs of its kind, beyond `keep` including this one."""
        same = [
            other
            for other in self.jobs.values()
            if other.is_over
            and other.id != job.id
            and (other.key, other.schedule) == (job.key, job.schedule)
        ]
        same.sort(key=lambda other: other.ended)
        return [other.id for other in same[: max(0, len(same) + 1 - max(1, keep))]]

    def lines(self, id: str) -> Sequence[str]:
        """Return the last lines of an ended job."""
        row = self._store.database.execute("SELECT lines FROM job WHERE id = ?", (id,)).fetchone()
        return row[0].split("\n") if row and row[0] else ()

    def looked(self, project: str, service: str, name: str) -> float | None:
        """Return the time up to which a schedule was checked; None for a new one."""
        return self._looked.get((project, service, name))

    def look(self, at: Mapping[tuple[str, str, str], float]) -> None:
        """Record the times up to which schedules were checked."""
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO schedule VALUES (?, ?, ?, ?)",
                [(*schedule, when) for schedule, when in at.items()],
            )
        self._looked.update(at)

    def keep(self, projects: Collection[str]) -> None:
        """Delete the records of all other projects."""
        jobs = [(job.id,) for job in self.jobs.values() if job.project not in projects]
        looked = [schedule for schedule in self._looked if schedule[0] not in projects]
        if not jobs and not looked:
            return
        with self._store.transaction() as database:
            database.executemany("DELETE FROM job WHERE id = ?", jobs)
            database.executemany(
                "DELETE FROM schedule WHERE project = ? AND service = ? AND name = ?", looked
            )
        for (id,) in jobs:
            del self.jobs[id]
        for schedule in looked:
            del self._looked[schedule]
