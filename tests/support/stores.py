"""Stores with content."""

from pathlib import Path

from meshd.model.rollout import Override, RolloutState
from meshd.spec.model import Project, Service
from meshd.store.store import Store


def open_store(directory: Path) -> Store:
    """Open the store of a folder; create the folder if it does not exist."""
    directory.mkdir(exist_ok=True)
    store = Store(directory)
    store.open()
    return store


def shop_project(*services: str) -> Project:
    """Return a project whose services have only a name."""
    return Project(name="shop", services=tuple(Service(name=name) for name in services))


def filled_store(directory: Path) -> Store:
    """Return a store with a row of every kind: a finished and an unfinished rollout, an override, a
    size from the autoscaler, a secret, an instance and an epoch."""
    store = open_store(directory)
    store.deploy(shop_project("web", "db"), {"web": "w1", "db": "d1"}, "me", "start x", 10.0)
    store.finish("shop/web", RolloutState.DONE, "ready", 11.0)
    store.set_override("shop/web", Override(4, 99.0))
    store.set_scaling({"shop/db": (3, {"learned": 1}, 0)}, 12.0)
    store.secret(), store.instance(), store.next_epoch()
    return store
