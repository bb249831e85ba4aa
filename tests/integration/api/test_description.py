"""Requests that schemathesis makes from the description: no response is a server error or differs
from the description, and no route is open without a token.

Specifications and archives are left out: their rules go beyond what a schema can say. So is
`follow`, because a stream does not end.
"""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from meshd.api import server as server_module
from meshd.api.access import TcpGuard
from meshd.api.openapi import describe
from meshd.api.rate_limit import PeerLimiter
from meshd.api.route_table import ROUTES
from meshd.api.server import serve
from meshd.api.tcp_address import TcpSettings
from meshd.model.access import Role
from meshd.model.release import Release
from meshd.spec.model import Project
from tests.fakes.control import FakeControl

EXAMPLES = 4
"""Requests of each operation: enough to reach each parameter, in a few seconds."""
RELEASE = Release(
    project="shop", service="orders", number=4, revision="b", previous="a", how="deploy",
    who="me", at=100.0, changed="image", outcome="done",
)  # fmt: skip


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The URL of a served API, and the token of an admin. It runs in a thread, because
    schemathesis does not know asyncio."""
    unlimited = partial(TcpGuard, limiter=PeerLimiter(1e9, 1e9))
    monkeypatch.setattr(server_module, "TcpGuard", unlimited)
    control = FakeControl()
    control.released = [RELEASE]
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, str]] = []
    ready = threading.Event()

    async def run() -> None:
        end = asyncio.Event()
        tcp = TcpSettings("127.0.0.1:0")
        async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0", tcp) as bound:
            started.append((asyncio.get_running_loop(), end, bound.tcp_address))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    loop, end, address = started[0]
    yield f"http://{address}", control.access.add(Role.ADMIN)
    loop.call_soon_threadsafe(end.set)
    thread.join(30)


def description() -> dict[str, Any]:
    found = describe([route for route in ROUTES if route.body not in (Project, bytes)])
    for path in found["paths"].values():
        for operation in path.values():
            operation["parameters"] = [
                each for each in operation["parameters"] if each["name"] != "follow"
            ]
    return found


def test_responses_are_as_the_description_says(api: tuple[str, str]) -> None:
    url, token = api
    headers = {"Authorization": f"Bearer {token}"}
    tried = []
    for found in schemathesis.openapi.from_dict(description()).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            response = case.call(base_url=url, headers=headers, timeout=30)
            case.validate_response(response, headers=headers)

        check()
        tried.append(operation.label)
    assert len(tried) == len(ROUTES) - 3
