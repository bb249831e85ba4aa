"""A store with something in it."""

from pathlib import Path

from meshd.model.rollout import Override, RolloutState
from meshd.spec.model import Project, Service
from meshd.store.store import Store


def opened(directory: Path) -> Store:
    """The store of a folder, which is made where there is none."""
    directory.mkdir(exist_ok=True)
    store = Store(directory)
    store.open()
    return store


def shop(*services: str) -> Project:
    """A project of services that have nothing but a name."""
    return Project(name="shop", services=tuple(Service(name=name) for name in services))


def filled(directory: Path) -> Store:
    """A store with something of every kind: a rollout that is done and one that is not, a number
    set by hand, one of the autoscaler, a secret, an instance and an epoch."""
    store = opened(directory)
    store.deploy(shop("web", "db"), {"web": "w1", "db": "d1"}, "me", "start x", 10.0)
    store.finish("shop/web", RolloutState.DONE, "ready", 11.0)
    store.set_override("shop/web", Override(4, 99.0))
    store.set_scaling({"shop/db": (3, {"learned": 1}, 0)}, 12.0)
    store.secret(), store.instance(), store.next_epoch()
    return store
