"""A user's view: `meshd up` with a webhook, and a service that begins to crash again and again."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import web

from tests.support.mesh import TestMesh
from tests.support.scaled import scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
SECRET = "T0KEN-in-the-path"
SENT = 'meshd_notifications_total{outcome="sent"} 1.0'
SERVER = """
import http.server, os, pathlib, threading, time

def watch():
    while not pathlib.Path("broken").exists():
        time.sleep(0.05)
    os._exit(3)

threading.Thread(target=watch, daemon=True).start()
address = ("127.0.0.1", int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""
COMPOSE = f"""
name: shop
services:
  web:
    command: [{sys.executable}, server.py]
    x-mesh: {{routes: [/]}}
x-mesh: {{notify: {{url: "${{HOOK}}", wait: 0, events: [crash-loop]}}}}
"""


async def test_a_crash_loop_reaches_the_webhook_and_the_url_stays_secret() -> None:
    bodies: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post(f"/{SECRET}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook = f"http://127.0.0.1:{runner.addresses[0][1]}/{SECRET}"
        async with scaled_mesh(HOOK=hook) as mesh:
            (mesh.folder / "server.py").write_text(SERVER)
            (mesh.folder / "healthz").touch()
            done = await mesh.up(COMPOSE)
            assert done.code == 0, done.out + done.err
            (mesh.folder / "broken").touch()
            await wait_until(lambda: bodies, 30, "a notification", 0.1)
            (alert,) = bodies[0]["alerts"]
            assert (alert["topic"], alert["status"]) == ("crash-loop", "firing")
            assert (alert["project"], alert["service"]) == ("shop", "web")
            await wait_until(lambda: counts_the_message(mesh), 10, "the metric", 0.1)
            shown = [done.out + done.err, *await all_output(mesh)]
    finally:
        await runner.cleanup()
    assert not [text for text in shown if SECRET in text]
    assert any(SENT in text for text in shown)
    assert any("shop/web" in text and "crash-loop" in text for text in shown)


async def counts_the_message(mesh: TestMesh) -> bool:
    return SENT in await mesh.text("/metrics")


async def all_output(mesh: TestMesh) -> list[str]:
    """Return what status, logs, events, silences and commands show."""
    file = str(mesh.folder / "compose.yml")
    found = [await mesh.text(path) for path in ("/metrics", "/v1/status", "/v1/events")]
    silenced = await mesh.run("silence", "add", "web", "--for", "1h", "--event", "crash-loop")
    assert silenced.code == 0, silenced.err
    commands = (("silence", "ls"), ("diff", "-f", file), ("events",), ("inspect", "web"))
    for done in await asyncio.gather(*(mesh.run(*command) for command in commands)):
        found.append(done.out + done.err)
    found.append(silenced.out)
    shown = subprocess.run(
        [sys.executable, "-m", "meshd", "config", "-f", file, "--format", "json"],
        env={**os.environ, **mesh.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(shown.stdout)["x-mesh"]["notify"]["url"] == "***"
    logs = list(mesh.state.glob("*.log"))
    assert logs
    return [*found, shown.stdout, *(path.read_text(errors="replace") for path in logs)]
