"""Which paths of a container get an anonymous volume."""

from typing import Any

import pytest

from meshd.runtime.docker.anonymous import free_targets

ANONYMOUS = {"Type": "volume", "Target": "/scratch/"}
NAMED = {"Type": "volume", "Target": "/data", "Source": "shop_data"}


@pytest.mark.parametrize(
    ("host", "image_volumes", "targets"),
    [
        ({}, (), []),
        ({"Mounts": [ANONYMOUS, NAMED]}, (), ["/scratch"]),
        ({"Mounts": [NAMED]}, ("/data/", "/cache"), ["/cache"]),
        ({"Mounts": [ANONYMOUS]}, ("/scratch",), ["/scratch"]),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/cache"}]}, ("/cache",), []),
        ({"Binds": ["/srv:/cache:rw"]}, ("/cache",), []),
        ({"Tmpfs": {"/cache": "size=1m"}}, ("/cache",), []),
    ],
)
def test_paths(host: dict[str, Any], image_volumes: tuple[str, ...], targets: list[str]) -> None:
    assert free_targets(host, image_volumes) == targets
