"""The volumes that `meshd down --volumes` deletes."""

from meshd.api.dto import VolumeStatus
from meshd.cli.commands.down import deletable


def test_only_volumes_of_the_project_alone_are_deleted() -> None:
    own = VolumeStatus("shop_data", "shop", ("shop/db",))
    unused = VolumeStatus("shop_old", "shop", state="unused")
    volumes = [
        own,
        unused,
        VolumeStatus("other_data", "other", ("other/db",)),
        VolumeStatus("shop_external", "shop", ("shop/db",), external=True),
        VolumeStatus("shop_shared", "shop", ("shop/db", "other/web")),
        VolumeStatus("unknown", ""),
    ]
    assert deletable(volumes, ["shop"]) == [own, unused]
