"""The spec that an undo deploys."""

from meshd.control.rollouts import restore
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Service

OLD = Service(
    name="web",
    image="registry.example/web:1",
    image_id="1" * 64,
    image_digest="sha256:" + "a" * 64,
    image_ports=(3000,),
    replicas=1,
)
NEW = Service(
    name="web",
    image="registry.example/web:2",
    image_id="2" * 64,
    image_digest="sha256:" + "b" * 64,
    image_ports=(4000,),
    replicas=3,
)


def test_an_undo_restores_what_pins_the_image_as_a_whole() -> None:
    back = restore(NEW, OLD)
    assert (back.image, back.image_id, back.image_digest, back.image_ports) == (
        OLD.image, OLD.image_id, OLD.image_digest, OLD.image_ports,
    )  # fmt: skip
    assert compute_revision(back) == compute_revision(OLD)
    assert back.replicas == 3
