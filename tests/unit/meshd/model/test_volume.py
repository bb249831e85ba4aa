"""The names of volumes on the runtime."""

from meshd.model.volume import named_volumes
from meshd.spec.model import Mount


def test_named_volumes_have_the_names_of_compose() -> None:
    data = Mount(type="volume", source="data", target="/data")
    given = Mount(type="volume", source="other", target="/o", volume_name="shared")
    mounts = (
        data,
        given,
        Mount(type="volume", source="", target="/anonymous"),
        Mount(type="bind", source="/srv", target="/srv"),
    )
    assert named_volumes("shop", mounts) == {"shop_data": data, "shared": given}
