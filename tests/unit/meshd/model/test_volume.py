"""The names of volumes on the runtime."""

from meshd.model.volume import abandoned_volumes, named_volumes
from meshd.spec.model import Mount, Project, Service


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


def test_a_volume_that_no_service_mounts_any_more_is_found() -> None:
    def project(*sources: str) -> Project:
        mounts = tuple(Mount(type="volume", source=each, target=f"/{each}") for each in sources)
        return Project(name="shop", services=(Service(name="db", image="a", volumes=mounts),))

    assert abandoned_volumes(project("data", "old"), project("data", "new")) == ["shop_old"]
    assert abandoned_volumes(project("data"), project("data")) == []
