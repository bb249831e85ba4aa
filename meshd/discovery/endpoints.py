"""Observed replicas → endpoints of the snapshot. Pure.

`meshd.reconcile.publish_snapshot` calls it; `meshd.publish.compile` takes the result.

Only a replica that answered a probe becomes an endpoint. A replica that is being removed stays a
`draining` endpoint until it has ended, so that workers let it finish its requests.
"""

from collections.abc import Iterable
from typing import Final

from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from proxy.wire.snapshot import Endpoint, EndpointState

_LEAVING: Final = (Phase.DRAINING, Phase.STOPPING)


def endpoints_by_service(
    replicas: Iterable[Replica], *, on_nodes: bool = False
) -> dict[str, tuple[Endpoint, ...]]:
    """Return the endpoints by service key, ordered by id; services without any are left out.
    `on_nodes`: replicas run on several nodes, each of which may be lost."""
    found: dict[str, list[Endpoint]] = {}
    for replica in replicas:
        endpoint = _endpoint(replica, replica.node if on_nodes else "")
        if endpoint is not None:
            found.setdefault(replica.key, []).append(endpoint)
    return {key: tuple(sorted(group, key=lambda e: e.id)) for key, group in found.items()}


def _endpoint(replica: Replica, node: str) -> Endpoint | None:
    leaving = replica.phase in _LEAVING
    if not replica.host or not (replica.phase is Phase.READY or (leaving and replica.ready_since)):
        return None
    return Endpoint(
        id=replica.name,
        host=replica.host,
        port=replica.port,
        revision=replica.revision,
        state=_state(replica, leaving=leaving),
        ready_since=replica.ready_since,
        alternatives=replica.alternatives,
        node=node,
    )


def _state(replica: Replica, *, leaving: bool) -> EndpointState:
    if leaving and replica.hangs:
        return "failed"
    return "draining" if leaving or replica.unready else "ready"


def services_by_address(replicas: Iterable[Replica]) -> dict[str, str]:
    """Return the service key by source address.

    On a network that several services share, only the address identifies the caller. It also
    identifies a call through the gateway of another network.
    """
    return {address: replica.key for replica in replicas for address in replica.addresses}


def find_shared_gateways(replicas: Iterable[Replica]) -> dict[tuple[str, str], str]:
    """Return the project by (gateway, network), for the networks of adopted containers and their
    copies; an empty project if several use the network."""
    found: dict[tuple[str, str], str] = {}
    for replica in replicas:
        if not replica.managed or replica.copied:
            for network in replica.gateways:
                project = found.setdefault(network, replica.project)
                if project != replica.project:
                    found[network] = ""
    return found
