"""Where replicas call other services: at the proxy of their node. Pure.

`SwarmRuntime` decides on which node a replica starts, and asks here for its environment. The calls
then do not leave the node in clear text, and do not depend on the host of the control process.
"""

from dataclasses import replace

from meshd.model.runtime import ReplicaSpec
from proxy.ipc.address import Address


def join_address(host: str, port: int) -> str:
    """Return an address as it is in a URL."""
    return str(Address(host, port))


def call_through(replica: ReplicaSpec, known: str, address: str) -> ReplicaSpec:
    """Return a replica that calls at `address` (`HOST:PORT`) where it was to call at the `known`
    one, with the same token: every proxy of the mesh knows it."""
    before, after = f"http://{known}/.mesh/", f"http://{address}/.mesh/"
    environment = {
        name: after + value.removeprefix(before) if value.startswith(before) else value
        for name, value in replica.environment.items()
    }
    return replace(replica, environment=environment)
