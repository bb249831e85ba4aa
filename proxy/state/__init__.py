"""State that lives from snapshot to snapshot in a worker: routes, services, endpoints, limits."""
