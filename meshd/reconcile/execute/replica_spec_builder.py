"""Builds the spec of a replica or job that is to start from the current desired state.

Owned by the reconciler and called by its executor. `replica_spec` has the pure part.
"""

from meshd.model.job import Job
from meshd.model.operation import StartReplica
from meshd.model.replica import Version
from meshd.model.runtime import ReplicaSpec
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.execute.replica_spec import as_job, credential, replica_spec, start_of
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.runtime.base import RevisionMissing
from meshd.spec.model import Network, Service
from meshd.store.store import Store


class ReplicaSpecBuilder:
    """Combines a revision's spec, the addresses of the mesh, and the replica's credential."""

    def __init__(
        self,
        desired: DesiredStateBuilder,
        store: Store,
        publisher: Publisher,
        gateways: Gateways,
        claims: ProjectClaims,
    ) -> None:
        self._desired = desired
        self._store = store
        self._publisher = publisher
        self._gateways = gateways
        self._claims = claims
        self._secret = store.secret()

    def may_start(self) -> bool:
        """Whether the addresses of the mesh are known, so that replicas can get them."""
        return self._gateways.is_ready(self._publisher.bound)

    def service(self, version: Version) -> tuple[Service, tuple[Network, ...]] | None:
        """Return the spec of a version and the networks that its project declares; None if the
        version is not desired any more."""
        found = self._desired.service(version[0])
        if found is None or found.revision != version[1]:
            return None
        project = self._desired.project(found.project)
        return found.spec, project.networks if project else ()

    def replica(self, start: StartReplica) -> ReplicaSpec | None:
        """Return the spec of a replica; None if its revision is not desired any more."""
        found = self._desired.service(start.key)
        if found is None or found.revision != start.revision:
            return None
        return self._build(start, found.spec)

    def stored_spec(self, version: Version) -> Service | None:
        """Return the spec of a version, also of an earlier one; None if it is not stored."""
        found = self._desired.service(version[0])
        if found is not None and found.revision == version[1]:
            return found.spec
        return self._store.revision(*version)

    def job(self, job: Job) -> tuple[ReplicaSpec, tuple[Network, ...]]:
        """Return the spec of a job and the networks that its project declares. Raises
        RevisionMissing if its service or revision no longer exists."""
        project, service = self._desired.project(job.project), self._service_of(job)
        if project is None or service is None:
            raise RevisionMissing(f"revision {job.revision[:12]} of {job.key} no longer exists")
        return as_job(self._build(start_of(job), service), job), project.networks

    def _build(self, start: StartReplica, service: Service) -> ReplicaSpec:
        project = self._desired.project(start.project)
        token = credential(self._secret, start.name)
        base = self._gateways.token_url(self._publisher.bound, token)
        gateway, instance = self._gateways.address_of(start.key), self._claims.holder.instance
        by_network = project is not None and self._gateways.starts_with_network(start.key)
        names = (
            self._gateways.virtual.host_names(project, service) if project and by_network else {}
        )
        return replica_spec(start, project, service, gateway, base, instance, names)

    def _service_of(self, job: Job) -> Service | None:
        return self.stored_spec((job.key, job.revision))
