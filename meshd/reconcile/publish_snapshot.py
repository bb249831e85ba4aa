"""What follows from a pass: who is probed from now on, and what the workers route by."""

from collections.abc import Mapping, Sequence

from meshd.discovery.endpoints import callers, endpoints, shared_gateways
from meshd.discovery.probe import Prober, ProbeTarget
from meshd.model.desired import Desired
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED, Phase
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.publish.compile import compile_snapshot
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.execute.replica_spec import credential
from meshd.spec.model import HealthCheck
from proxy.wire.snapshot import Split

_RUNS = (ReplicaState.RUNNING, ReplicaState.PAUSED)
_LEAVING = (Phase.DRAINING, Phase.STOPPING)


class SnapshotUpdater:
    """Does its work only when what it is made of changed. `trusted_proxies` are networks whose
    word about earlier hops is taken; they do not change while it runs."""

    def __init__(
        self,
        wanted: DesiredStateBuilder,
        prober: Prober,
        publisher: Publisher,
        gateways: Gateways,
        secret: bytes,
    ) -> None:
        self._wanted = wanted
        self._prober = prober
        self._publisher = publisher
        self._gateways = gateways
        self._secret = secret
        self.trusted_proxies: tuple[str, ...] = ()
        self.splits: Mapping[str, Split] = {}
        """How revisions share a service's requests, by service key, while they do."""
        self._made_of: object = None

    def update(
        self,
        replicas: tuple[Replica, ...],
        desired: Desired,
        listed: Mapping[str, ObservedReplica],
        jobs: Mapping[str, str],
    ) -> None:
        """Probe and publish what these replicas come to; `jobs` names the services that others
        call for, by their ids."""
        self._gateways.share(shared_gateways(replicas))
        made_of = (replicas, desired, self._gateways.listeners(), dict(jobs), self.splits)
        if made_of == self._made_of:
            return
        self._made_of = made_of
        self._prober.want(self._targets(replicas, listed))
        self._publish(replicas, jobs)

    def _targets(
        self, replicas: Sequence[Replica], listed: Mapping[str, ObservedReplica]
    ) -> dict[str, ProbeTarget]:
        """Everything that runs. Of what leaves, only adopted ones: they may come back."""
        targets: dict[str, ProbeTarget] = {}
        for replica in replicas:
            seen = listed.get(replica.name)
            if seen is None or seen.host is None or seen.state not in _RUNS:
                continue
            asleep = replica.reserve or seen.state is ReplicaState.PAUSED
            if replica.phase is Phase.PAUSED and asleep:
                continue
            if replica.phase in ENDED or (replica.managed and replica.phase in _LEAVING):
                continue
            found = self._wanted.service(replica.key)
            targets[replica.name] = ProbeTarget(
                host=seen.host,
                port=seen.port,
                health=found.spec.mesh.health if found else HealthCheck(),
                incarnation=(seen.runtime_id, seen.started_at),
                proven=replica.phase is Phase.READY,
            )
        return targets

    def _publish(self, replicas: Sequence[Replica], jobs: Mapping[str, str]) -> None:
        credentials = {}
        if self._gateways.uses_tokens:
            credentials = {
                credential(self._secret, r.name): r.key for r in replicas if r.phase not in ENDED
            }
            credentials |= {credential(self._secret, id): key for id, key in jobs.items()}
        snapshot = compile_snapshot(
            self._publisher.generation,
            self._wanted.effective_projects(),
            endpoints(replicas),
            listeners=self._gateways.listeners(),
            credentials=credentials,
            callers={} if self._gateways.uses_tokens else callers(replicas),
            trusted_proxies=self.trusted_proxies,
            splits=self.splits,
        )
        self._publisher.publish(snapshot)
