"""Whether a replica that ended is restarted, by the restart policy of its service. Pure.

`meshd.reconcile.observe` counts failures by it. Plans, rollouts and the status pages ask whether a
replica that ended stays: it completed, or it failed for good.
"""

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED
from meshd.spec.model import Service


def will_restart(spec: Service, exit_code: int | None, attempt: int) -> bool:
    """Return whether the policy restarts a replica that ended by itself.

    - `exit_code`: None if it never ran; then it is started again in any case.
    - `attempt`: quick failures in a row before its start.
    """
    condition, most = spec.restart_condition, spec.restart.max_attempts
    if exit_code is None:
        return True
    if condition == "none" or (condition == "on-failure" and exit_code == 0):
        return False
    return not most or attempt < most


def stays_ended(service: DesiredService, replica: Replica) -> bool:
    """Return whether a replica of the current revision ended and is not restarted.

    A failed one is tried again by the next deployment.
    """
    if replica.phase not in ENDED or replica.exit_code is None:
        return False
    if replica.drain_since or replica.busy or replica.replaced_for:  # meshd stops it
        return False
    if service.adopted or not replica.managed or replica.revision != service.revision:
        return False
    if replica.exit_code and replica.ended_at < service.deployed_at:
        return False
    attempt = replica.attempt if replica.uptime < service.spec.restart.window else 0
    return not will_restart(service.spec, replica.exit_code, attempt)


def has_completed(service: DesiredService, replica: Replica) -> bool:
    """Return whether a replica of the current revision did its work and ended with code 0."""
    return replica.exit_code == 0 and stays_ended(service, replica)


def has_failed(service: DesiredService, replica: Replica) -> bool:
    """Return whether a replica of the current revision failed and is not restarted."""
    return bool(replica.exit_code) and stays_ended(service, replica)
