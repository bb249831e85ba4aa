"""Which endpoints exist: observed replicas → endpoints of the snapshot. Pure.

Only a replica that answered a probe is here. One that leaves stays as `draining`, so that
workers let it finish what it has, until it has ended.
"""

from collections.abc import Iterable

from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from proxy.wire.snapshot import Endpoint

_LEAVING = (Phase.DRAINING, Phase.STOPPING)


def endpoints(replicas: Iterable[Replica]) -> dict[str, tuple[Endpoint, ...]]:
    """By service key, ordered by id; services without any are left out."""
    found: dict[str, list[Endpoint]] = {}
    for replica in replicas:
        endpoint = _endpoint(replica)
        if endpoint is not None:
            found.setdefault(replica.key, []).append(endpoint)
    return {key: tuple(sorted(group, key=lambda e: e.id)) for key, group in found.items()}


def _endpoint(replica: Replica) -> Endpoint | None:
    leaving = replica.phase in _LEAVING
    if not replica.host or not (replica.phase is Phase.READY or (leaving and replica.ready_since)):
        return None
    return Endpoint(
        id=replica.name,
        host=replica.host,
        port=replica.port,
        revision=replica.revision,
        state="draining" if leaving or replica.unready else "ready",
        ready_since=replica.ready_since,
    )


def callers(replicas: Iterable[Replica]) -> dict[str, str]:
    """Source address → service key. On networks that services share, the address is all that
    tells who calls; and a call to another network's gateway is known for what it is."""
    return {address: replica.key for replica in replicas for address in replica.addresses}


def shared_gateways(replicas: Iterable[Replica]) -> dict[tuple[str, str], str]:
    """(gateway, network) → project, of the networks that adopted containers and their copies
    are on; an empty project where those are of several."""
    found: dict[tuple[str, str], str] = {}
    for replica in replicas:
        if not replica.managed or replica.copied:
            for network in replica.gateways:
                known = found.setdefault(network, replica.project)
                if known != replica.project:
                    found[network] = ""
    return found
