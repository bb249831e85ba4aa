"""The clients of the demo notice what goes wrong: locust runs against a small server."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.ports import free_port

FILE = Path(__file__).parents[2] / "demo_services" / "locustfile.py"


async def answer(request: web.Request, end: bool) -> web.StreamResponse:
    """Answer as the demo does; a stream has its last event, or not."""
    if not request.path.startswith("/tracking/"):
        found: dict[str, Any] = {"token": "t", "id": 1, "results": [{"id": 1}], "items": []}
        return web.json_response(found, status=201 if request.path == "/orders" else 200)
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    await stream.write("event: position\ndata: ü\n\n".encode())
    if end:
        await stream.write(b"event: end\ndata: {}\n\n")
    return stream


@pytest.mark.parametrize("end", [True, False])
async def test_a_stream_must_be_complete(tmp_path: Path, end: bool) -> None:
    app, port, report = web.Application(), free_port(), tmp_path / "lunch.json"

    async def respond(request: web.Request) -> web.StreamResponse:
        return await answer(request, end)

    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        locust = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "locust", "-f", str(FILE), "-H", f"http://127.0.0.1:{port}",
            "--headless", "--only-summary",
            env={**os.environ, "LUNCH_SECONDS": "5", "LUNCH_REPORT": str(report)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await asyncio.wait_for(locust.wait(), 60)
    finally:
        await runner.cleanup()
    totals = json.loads(report.read_text())
    assert totals["served"] > 20
    cut = [each for each in totals["errors"] if "stream" in each["request"]]
    assert bool(cut) is not end, totals["errors"]
    assert totals["failed"] == sum(each["count"] for each in cut), totals["errors"]
