"""A control process that does not lead sends no request that changes anything."""

from typing import Any, cast

import pytest

from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.engine import Engine
from meshd.runtime.swarm.api import SwarmApi


class NoEngine:
    """An engine that must not be asked."""

    def request(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a request was sent")


async def test_without_the_lease_nothing_is_changed() -> None:
    api = SwarmApi(cast("Engine", NoEngine()), lambda: 0.0)
    changes = (
        api.create("services", {"Name": "web"}),
        api.replace("nodes", "m1", 4, {}),
        api.delete("secrets", "token"),
    )
    for change in changes:
        with pytest.raises(RuntimeUnavailable, match="does not lead"):
            await change
    leading = SwarmApi(cast("Engine", NoEngine()), lambda: 1.5)
    with pytest.raises(AssertionError, match="was sent"):
        await leading.create("services", {"Name": "web"})
