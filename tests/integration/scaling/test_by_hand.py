"""A number that is set by hand: no event announces another one."""

from pathlib import Path

from meshd.model.rollout import Override
from tests.fakes.scaling_scene import KEY, Scene, desired, replicas


def test_no_event_announces_scaling_that_does_not_happen(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    service = desired(2, scale={"min": 1, "rps": 10, "concurrency": None})
    scene.store.set_override(KEY, Override(2, 0.0))
    for _ in range(10):
        scene.second(service, replicas(2), arrivals=200)
    kinds = [event.kind for event in scene.events.since(0, 1000)]
    assert [kind for kind in kinds if kind.startswith("scale.")] == []
    assert scene.wanted() == 20, "the policy still follows the load, for later"
    scene.close()
