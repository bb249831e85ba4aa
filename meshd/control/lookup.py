"""Finds projects, services and replicas by name, with an error that lists the known names.

Used by every part of `meshd.control` that takes a name from a user.
"""

from meshd.model.desired import DesiredService
from meshd.model.errors import NotFound
from meshd.model.replica import Replica
from meshd.model.rollout import StoredProject
from meshd.reconcile.loop import Reconciler
from meshd.store.store import Store


class Lookup:
    """Lookups in the store and in the state as of the last pass."""

    def __init__(self, store: Store, reconciler: Reconciler) -> None:
        self._store = store
        self._reconciler = reconciler

    def stored_project(self, project: str) -> StoredProject:
        """Return a project as it was deployed. Raises NotFound."""
        found = self._store.projects.get(project)
        if found is None:
            known = ", ".join(sorted(self._store.projects)) or "none"
            raise NotFound(f"there is no project {project}; known: {known}")
        return found

    def services(self, project: str) -> list[DesiredService]:
        """Return the services of a project; empty if it is not known."""
        return [s for s in self._reconciler.view().desired.services if s.project == project]

    def service(self, project: str, service: str) -> DesiredService:
        """Return a service. Raises NotFound."""
        found = self._reconciler.view().service(f"{project}/{service}")
        if found is None:
            known = ", ".join(s.spec.name for s in self.services(project)) or "none"
            raise NotFound(f"project {project} has no service {service}; known: {known}")
        return found

    def replicas(self, project: str, service: str) -> list[Replica]:
        """Return the replicas of a service, oldest first. Raises NotFound."""
        key = self.service(project, service).key
        found = [r for r in self._reconciler.view().observed.replicas if r.key == key]
        return sorted(found, key=lambda r: (r.created_at, r.name))
