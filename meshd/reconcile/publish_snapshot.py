"""The end of a pass: which replicas to probe, and the snapshot that the workers route by.

Owned by the reconciler. Neighbours: `meshd.discovery.probe` probes, `meshd.publish` compiles and
sends snapshots.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.certificates.values import ServedCertificates
from meshd.discovery.endpoints import (
    endpoints_by_service,
    find_shared_gateways,
    services_by_address,
)
from meshd.discovery.probe import PLAIN, ProbeOpening, Prober, ProbeTarget
from meshd.model.desired import Desired
from meshd.model.peers import PeerHop, PeerSettings
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED, Phase
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.publish.compile import EdgeSettings, compile_snapshot, compile_upstream_tls
from meshd.publish.gateways import Gateways
from meshd.publish.port_changes import PortFacts
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.execute.host_names import HostNames, HostNamesWriter
from meshd.reconcile.execute.port_redirects import PortRedirectWriter
from meshd.reconcile.execute.replica_spec import credential
from meshd.spec.model import HealthCheck, Service
from proxy.wire.snapshot import Endpoint, Snapshot, Split

_RUNS = (ReplicaState.RUNNING, ReplicaState.PAUSED)
_LEAVING = (Phase.DRAINING, Phase.STOPPING)
KIND_CHANGED: Final = 10.0
"""Seconds after a rollout for which a service that became plain is still found at its virtual
address: its new replicas run, but may not accept connections yet."""


class SnapshotUpdater:
    """Sets the probe targets and publishes a snapshot, if anything they are made of changed.
    `edge` are the settings of the proxy as a whole, `certificates` returns what a certificate
    authority has issued and asks, `peers` how proxies reach other nodes, `held_snapshot` is the one
    that the workers route by at the start."""

    def __init__(
        self,
        desired: DesiredStateBuilder,
        prober: Prober,
        publisher: Publisher,
        gateways: Gateways,
        secret: bytes,
        edge: EdgeSettings,
        host_names: HostNamesWriter,
        certificates: Callable[[], ServedCertificates],
        peers: Callable[[], PeerSettings],
        redirects: PortRedirectWriter,
        held_snapshot: Snapshot | None,
    ) -> None:
        self._desired = desired
        self._prober = prober
        self._publisher = publisher
        self._gateways = gateways
        self._secret = secret
        self._edge = edge
        self._host_names = host_names
        self._certificates = certificates
        self._peers = peers
        self._redirects = redirects
        self._held = _open_at_start(held_snapshot)
        self._gateways.hold_ports(held_snapshot.listeners if held_snapshot else ())
        self._seen_desired: Desired | None = None
        self._becomes_managed: set[str] = set()
        self._inputs: object = None

    def update(
        self,
        replicas: tuple[Replica, ...],
        desired: Desired,
        listed: Mapping[str, ObservedReplica],
        jobs: Mapping[str, str],
        guests: Mapping[str, str],
        splits: Mapping[str, Split],
        now: float,
    ) -> None:
        """Update the probes, the names in running replicas, and publish a snapshot.

        - `jobs`: the service as which each job calls others, by job id.
        - `guests`: the service as which each container that is not a replica calls others, by its
          addresses.
        - `splits`: how revisions share a service's requests during a rollout, by service key.
        """
        self._gateways.set_shared(find_shared_gateways(replicas))
        virtual = self._gateways.virtual
        changing = self._changing(desired, now)
        projects = self._desired.effective_projects()
        self._gateways.set_projects(projects, changing, self._publisher.refused)
        self._move_ports(replicas, desired, changing, now)
        listeners = self._gateways.listeners()
        served, peers = self._certificates(), self._peers()
        callers, targets = (dict(jobs), guests), virtual.targets()
        inputs = (replicas, desired, listeners, targets, changing, callers, splits, served, peers)
        if inputs == self._inputs:
            return
        self._inputs = inputs
        probed = self._probe_targets(replicas, listed, peers)
        self._publish(replicas, jobs, guests, splits, served, peers, _find_starting(probed))
        self._prober.set_targets(probed)
        self._host_names.set_wanted(self._wanted_names(replicas, listed))

    def _move_ports(
        self,
        replicas: Sequence[Replica],
        desired: Desired,
        changing: frozenset[str],
        now: float,
    ) -> None:
        """Move published ports between the engine and the mesh, for services that change between
        plain and mesh-managed."""
        ports = self._gateways.ports
        if desired.leaving:  # their ports are closed with them
            changing = frozenset(k for k in changing if k.partition("/")[0] not in desired.leaving)
        if desired is not self._seen_desired:
            self._seen_desired = desired
            self._becomes_managed = {
                service.key
                for service in desired.services
                if service.spec.ports and not service.spec.plain and not service.rollout.is_done
            }
        becomes_managed = self._becomes_managed
        plain_running = frozenset(
            replica.key
            for replica in (replicas if becomes_managed else ())
            if replica.plain and replica.key in becomes_managed and replica.phase not in ENDED
        )
        if self._gateways.uses_tokens or (ports.is_idle and not changing and not plain_running):
            return
        publisher, redirects = self._publisher, self._redirects
        if not publisher.connected and not self._held:
            return
        facts = PortFacts(
            changing=changing,
            plain_running=plain_running,
            open=publisher.bound.keys() if publisher.connected else self._held,
            refused=publisher.refused.keys(),
            asked=redirects.asked or frozenset(),
            applied=redirects.applied,
        )
        redirects.set_wanted(ports.update(facts, now).redirects)

    def _changing(self, desired: Desired, now: float) -> frozenset[str]:
        """Return the plain services that were mesh-managed until their current rollout, which is
        not over or only just is."""
        known = self._gateways.virtual.services()
        if not known:  # where no service has a virtual address
            return frozenset()
        return frozenset(
            service.key
            for service in desired.services
            if service.spec.plain
            and service.key in known
            and (not service.rollout.is_done or now < service.rollout.since + KIND_CHANGED)
        )

    def _wanted_names(
        self, replicas: Sequence[Replica], listed: Mapping[str, ObservedReplica]
    ) -> dict[str, HostNames]:
        """Return the names that each running replica should know, where the mesh has virtual
        addresses."""
        virtual = self._gateways.virtual
        projects = {each.name: each for each in self._desired.effective_projects()}
        found: dict[str, HostNames] = {}
        for replica in replicas:
            seen, service = listed.get(replica.name), self._desired.service(replica.key)
            blocks = virtual.blocks(replica.project)
            if seen is None or service is None or seen.state not in _RUNS:
                continue
            if not blocks or not replica.managed or replica.copied:
                continue
            names = virtual.host_names(projects[replica.project], service.spec, replica.plain)
            found[replica.name] = HostNames((seen.runtime_id, seen.started_at), names, blocks)
        return found

    def _probe_targets(
        self,
        replicas: Sequence[Replica],
        listed: Mapping[str, ObservedReplica],
        peers: PeerSettings,
    ) -> dict[str, ProbeTarget]:
        """Return a target for each replica that runs and is not plain; among those that leave only
        for adopted ones, since they may come back."""
        targets: dict[str, ProbeTarget] = {}
        checks: dict[str, tuple[HealthCheck, ProbeOpening]] = {}
        on_nodes = self._gateways.has_nodes
        for replica in replicas:
            seen = listed.get(replica.name)
            if seen is None or seen.host is None or seen.state not in _RUNS or replica.plain:
                continue
            asleep = replica.warm or seen.state is ReplicaState.PAUSED
            if replica.phase is Phase.PAUSED and asleep:
                continue
            if replica.phase in ENDED or (replica.managed and replica.phase in _LEAVING):
                continue
            check = checks.get(replica.key)
            if check is None:
                found = self._desired.service(replica.key)
                check = (HealthCheck(), PLAIN)
                if found is not None:
                    check = (found.spec.probe, build_probe_opening(found.spec))
                checks[replica.key] = check
            targets[replica.name] = ProbeTarget(
                host=seen.host,
                port=seen.port,
                health=check[0],
                incarnation=(seen.runtime_id, seen.started_at),
                proven=replica.phase is Phase.READY,
                opening=_open_through(check[1], peers.find_hop(replica.node) if on_nodes else None),
                alternatives=seen.alternatives,
                pid=seen.pid,
            )
        return targets

    def _publish(
        self,
        replicas: Sequence[Replica],
        jobs: Mapping[str, str],
        guests: Mapping[str, str],
        splits: Mapping[str, Split],
        served: ServedCertificates,
        peers: PeerSettings,
        starting: Sequence[Endpoint],
    ) -> None:
        credentials, callers = {}, {**guests, **services_by_address(replicas)}
        if self._gateways.uses_tokens:
            credentials = {
                credential(self._secret, r.name): r.key for r in replicas if r.phase not in ENDED
            }
            credentials |= {credential(self._secret, id): key for id, key in jobs.items()}
        snapshot = compile_snapshot(
            self._publisher.generation,
            self._desired.effective_projects(),
            endpoints_by_service(replicas, on_nodes=self._gateways.has_nodes),
            listeners=self._gateways.listeners(),
            credentials=credentials,
            callers=callers if self._gateways.uses_networks else {},
            edge=self._edge,
            splits=splits,
            virtual=self._gateways.virtual.targets(),
            retained=self._gateways.virtual.services(),
            certificates=served.certificates,
            challenges=served.challenges,
            peers=peers,
            starting=starting,
        )
        self._publisher.publish(snapshot)


def build_probe_opening(service: Service) -> ProbeOpening:
    """Return what probes of a service's replicas begin with."""
    upstream = service.mesh.upstream
    if upstream.tls is None and upstream.proxy_protocol is None:
        return PLAIN
    return ProbeOpening(compile_upstream_tls(service), upstream.proxy_protocol or "")


def _open_through(opening: ProbeOpening, peer: PeerHop | None) -> ProbeOpening:
    return opening if peer is None else msgspec.structs.replace(opening, peer=peer)


def _find_starting(targets: Mapping[str, ProbeTarget]) -> list[Endpoint]:
    """Return the replicas that are probed through the proxies of their nodes, and do not serve."""
    return [
        Endpoint(id=name, host=target.host, port=target.port, node=target.opening.peer.node)
        for name, target in targets.items()
        if target.opening.peer is not None and target.opening.peer.port and not target.proven
    ]


def _open_at_start(held: Snapshot | None) -> frozenset[str]:
    """Return the addresses of published ports that an earlier process opened."""
    listeners = held.listeners if held else ()
    return frozenset(each.address for each in listeners if each.kind == "published")
