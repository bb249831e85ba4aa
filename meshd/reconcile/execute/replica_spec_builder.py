"""What the runtime is told of a replica or a job that is to start, read from what is wanted now."""

from meshd.model.job import Job
from meshd.model.operation import StartReplica
from meshd.model.replica import Version
from meshd.model.runtime import ReplicaSpec
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.execute.replica_spec import as_job, credential, replica_spec, start_of
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.spec.model import Network, Service
from meshd.store.store import Store


class ReplicaSpecBuilder:
    """Puts together the spec of a revision, where its replica meets the mesh, and its
    credential."""

    def __init__(
        self,
        wanted: DesiredStateBuilder,
        store: Store,
        publisher: Publisher,
        gateways: Gateways,
        claims: ProjectClaims,
        secret: bytes,
    ) -> None:
        self._wanted = wanted
        self._store = store
        self._publisher = publisher
        self._gateways = gateways
        self._claims = claims
        self._secret = secret

    def may_start(self) -> bool:
        """Whether what is started can be told where the mesh is."""
        return self._gateways.may_start(self._publisher.bound)

    def service(self, version: Version) -> tuple[Service, tuple[Network, ...]] | None:
        """The spec of a version, and the networks its project declares. None where it is wanted
        no more."""
        found = self._wanted.service(version[0])
        if found is None or found.revision != version[1]:
            return None
        project = self._wanted.project(found.project)
        return found.spec, project.networks if project else ()

    def replica(self, start: StartReplica) -> ReplicaSpec | None:
        """What the runtime is told for a start. None where its revision is wanted no more."""
        found = self._wanted.service(start.key)
        if found is None or found.revision != start.revision:
            return None
        return self._told(start, found.spec)

    def job(self, job: Job) -> tuple[ReplicaSpec, tuple[Network, ...]] | None:
        """What the runtime is told for a job, and the networks its project declares. None where
        its service or revision is not there any more."""
        project, service = self._wanted.project(job.project), self._revised(job)
        if project is None or service is None:
            return None
        told = self._told(start_of(job), service)
        return as_job(told, job.command, job.environment), project.networks

    def _told(self, start: StartReplica, service: Service) -> ReplicaSpec:
        project = self._wanted.project(start.project)
        token = credential(self._secret, start.name)
        base = self._gateways.token_base(self._publisher.bound, token)
        gateway, instance = self._gateways.of(start.key), self._claims.me.instance
        return replica_spec(start, project, service, gateway, base, instance)

    def _revised(self, job: Job) -> Service | None:
        found = self._wanted.service(job.key)
        if found is not None and found.revision == job.revision:
            return found.spec
        return self._store.revision(job.key, job.revision)
