"""The five minutes of the README: its Compose file with a database, then with its line of `x-mesh`.
Only the images are others, since tests have no registry."""

import asyncio
import re
import textwrap
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.application import IMAGE, SOURCE, build_image, run
from tests.support.load import Load
from tests.support.mesh import TestMesh
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
API = """
import http.server, json, os, psycopg2
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with psycopg2.connect(os.environ["PGRST_DB_URI"]) as db, db.cursor() as cursor:
            cursor.execute("select current_user")
            user = cursor.fetchone()[0]
        body = json.dumps({"user": user, "replica": os.uname().nodename, "version": ""}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()
"""


@pytest.fixture
def runtime() -> str:
    return "docker"


@pytest.fixture
async def project(mesh: TestMesh, engine_image: str) -> AsyncIterator[str]:
    assert engine_image
    await asyncio.to_thread(build_image)
    name = f"readme{uuid.uuid4().hex[:6]}"
    await run("docker", "build", "-q", "-t", f"{name}-db", "--build-arg", f"BASE={IMAGE}",
              str(SOURCE / "postgres"))  # fmt: skip
    yield name
    await mesh.down()
    for kind, left in (("volume", f"{name}_data"), ("image", f"{name}-db")):
        await run("docker", kind, "rm", "-f", left)


def example() -> tuple[str, str]:
    """Return the first Compose file of the README and the line that it adds to `api`."""
    text = (ROOT / "README.md").read_text().partition("## Five minutes")[2]
    file = re.search(r"```yaml\n(.*?)```", text, re.S)
    line = re.search(r"^ {8}(x-mesh: .*)$", text, re.M)
    assert file is not None
    assert line is not None
    return file[1], line[1]


async def test_the_five_minutes_of_the_readme(mesh: TestMesh, project: str, tmp_path: Path) -> None:
    text, line = example()
    port = free_port()
    (tmp_path / "api.py").write_text(textwrap.dedent(API))
    for old, new in (
        ("name: hello", f"name: {project}"),
        ("image: postgres:16", f"image: {project}-db"),
        (
            "image: postgrest/postgrest:v12.2.3",
            f"image: {IMAGE}\n    command: python3 /api.py\n"
            f'    volumes: ["{tmp_path}/api.py:/api.py:ro"]',
        ),
        ("3000:3000", f"{port}:3000"),
    ):
        assert old in text
        text = text.replace(old, new)

    async def answered() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/") as answer,
            ):
                return str((await answer.json(content_type=None))["user"]) == "postgres"
        except aiohttp.ClientError:
            return False

    up = await mesh.up(text)
    assert up.code == 0, up.out + up.err
    await wait_until(answered, 20, "an answer", interval=0.1)
    assert (await mesh.service("api"))["ready"] == 1
    (database,) = (await mesh.service("db"))["replicas"]

    changed = re.sub(r"^(  api:\n)", rf"\1    {line}\n", text, flags=re.M)
    (mesh.folder / "compose.yml").write_text(changed)
    diff = await mesh.run("diff", "-f", "compose.yml")
    assert "api" in diff.out
    assert database["name"] not in diff.out
    deployed = await mesh.run("deploy", "-f", "compose.yml")
    assert deployed.code == 0, deployed.out + deployed.err
    await mesh.until("api", lambda status: status["ready"] == 2, 30)
    async with Load(f"127.0.0.1:{port}", 20, 3) as load:
        await load.finished()
    assert load.result.failures == []
    assert load.result.served >= 50
    assert [each["name"] for each in (await mesh.service("db"))["replicas"]] == [database["name"]]
