"""Projects, services and replicas by the names that people give them."""

from meshd.model.desired import DesiredService
from meshd.model.errors import NotFound
from meshd.model.replica import Replica
from meshd.model.rollout import StoredProject
from meshd.reconcile.loop import Reconciler
from meshd.store.store import Store


class Lookup:
    """Finds what there is now; where there is none of a name, NoSuchThing tells which are known."""

    def __init__(self, store: Store, loop: Reconciler) -> None:
        self._store = store
        self._loop = loop

    def stored(self, project: str) -> StoredProject:
        """A project as it was deployed. Raises NoSuchThing."""
        found = self._store.projects.get(project)
        if found is None:
            known = ", ".join(sorted(self._store.projects)) or "none"
            raise NotFound(f"there is no project {project}; known: {known}")
        return found

    def services(self, project: str) -> list[DesiredService]:
        """The services of a project; none where it is not known."""
        return [s for s in self._loop.desired.services if s.project == project]

    def service(self, project: str, service: str) -> DesiredService:
        """One service. Raises NoSuchThing."""
        found = self._loop.wanted.service(f"{project}/{service}")
        if found is None:
            known = ", ".join(s.spec.name for s in self.services(project)) or "none"
            raise NotFound(f"project {project} has no service {service}; known: {known}")
        return found

    def replicas(self, project: str, service: str) -> list[Replica]:
        """The replicas of a service, oldest first. Raises NoSuchThing."""
        key = self.service(project, service).key
        found = [r for r in self._loop.observed.replicas if r.key == key]
        return sorted(found, key=lambda r: (r.created_at, r.name))
