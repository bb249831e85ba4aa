"""The stored virtual addresses of services.

`meshd.publish.virtual_addresses` stores each address before a container gets it, so that an address
never leads to another service while that container runs.
"""

from collections.abc import Mapping

from meshd.model.service_key import ServiceKey, service_key, split_key
from meshd.store.store import Store

Place = tuple[str, ServiceKey]
"""A network by name, and a service key."""


class VirtualAddressLog:
    """Virtual addresses by network and service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Mapping[Place, str]:
        """Return all that are stored."""
        rows = self._store.database.execute(
            "SELECT network, project, service, address FROM virtual_address"
        )
        return {
            (network, service_key(project, service)): address
            for network, project, service, address in rows
        }

    def keep(self, addresses: Mapping[Place, str]) -> None:
        """Store these."""
        rows = [(*split_key(key), network, at) for (network, key), at in addresses.items()]
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO virtual_address (project, service, network, address) "
                "VALUES (?, ?, ?, ?)",
                rows,
            )

    def forget(self, project: str) -> None:
        """Delete those of a project whose networks are gone."""
        with self._store.transaction() as database:
            database.execute("DELETE FROM virtual_address WHERE project = ?", (project,))
