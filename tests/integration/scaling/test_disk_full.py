"""A full disk: no order is given that cannot be stored, and none is carried out later."""

import contextlib
from pathlib import Path

import pytest

from meshd.model.errors import StoreWriteError
from tests.fakes.scaling_scene import Scene, desired, replicas


def test_a_number_that_cannot_be_stored_is_decided_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    service = desired(2, scale={"min": 1, "rps": 10, "concurrency": None})
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=15)
    assert scene.wanted() == 2
    before = [event.text for event in scene.events.since(0, 1000)]

    def full(*_: object) -> None:
        raise StoreWriteError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(scene.store, "set_scaling", full)
        for _ in range(20):
            with pytest.raises(StoreWriteError):
                scene.second(service, replicas(2), arrivals=200)
        assert scene.wanted() == 2
        # The load goes before there is room.
        for _ in range(120):
            with contextlib.suppress(StoreWriteError):
                scene.second(service, replicas(2), arrivals=15)
    for _ in range(30):
        scene.second(service, replicas(2), arrivals=15)
    assert scene.wanted() == 2
    assert [event.text for event in scene.events.since(0, 1000)] == before
    scene.close()
