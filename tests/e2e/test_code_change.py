"""A changed build context is a new version: it rolls out, and a rollback finds the old image."""

import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TestMesh

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("runtime", ["docker"], indirect=True)]
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.send_header("Content-Length", "{length}")
        self.end_headers()
        self.wfile.write(b"{text}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def write(folder: Path, text: str, status: int = 200) -> None:
    code = SERVER.format(text=text, length=len(text), status=status)
    (folder / "app" / "server.py").write_text(code)


def images(project: str) -> list[str]:
    command = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"{project}_web"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def said(mesh: TestMesh) -> str:
    with urllib.request.urlopen(f"http://{mesh.address}/", timeout=10) as answer:
        return str(answer.read().decode())


async def test_a_changed_file_of_the_build_context_rolls_out(
    mesh: TestMesh, engine_image: str
) -> None:
    project = mesh.environment["PROJECT"]
    app = mesh.folder / "app"
    app.mkdir()
    (app / "Dockerfile").write_text(
        f'FROM {engine_image}\nCOPY server.py /\nCMD ["python3", "/server.py"]\n'
    )
    write(mesh.folder, "one")
    try:
        up = await mesh.up(
            f"name: {project}\nservices:\n  web:\n    build: app\n"
            "    deploy: {replicas: 1, update_config: {monitor: 1s}}\n"
            "    x-mesh: {routes: [/], health: {path: /, start_timeout: 8s}}\n"
        )
        assert up.code == 0, up.out + up.err
        assert said(mesh) == "one"
        first = (await mesh.service("web"))["revision"]
        spec = str(mesh.folder / "compose.yml")
        same = await mesh.run("diff", "-f", spec)
        assert (same.code, same.out) == (0, "nothing to do\n")

        write(mesh.folder, "two")
        changed = await mesh.run("diff", "-f", spec)
        assert changed.code == 1, changed.out + changed.err
        done = await mesh.run("deploy", "-f", spec)
        assert done.code == 0, done.out + done.err
        assert said(mesh) == "two"
        second = (await mesh.service("web"))["revision"]
        assert second != first
        assert len(images(project)) == 3  # one a version, and the name of the newest

        # One that never gets healthy is taken back, to the image that it replaced.
        write(mesh.folder, "three", status=500)
        failed = await mesh.run("deploy", "-f", spec)
        assert failed.code == 1, failed.out + failed.err
        assert said(mesh) == "two"
        assert (await mesh.service("web"))["revision"] == second
        (replica,) = [r for r in (await mesh.service("web"))["replicas"] if r["phase"] == "ready"]
        mesh.kill(int(pid_of(replica["name"])))

        def replaced(service: dict[str, Any]) -> bool:
            ready = [r["name"] for r in service["replicas"] if r["phase"] == "ready"]
            return len(ready) == 1 and replica["name"] not in ready

        await mesh.until("web", replaced, 30)
        assert said(mesh) == "two"

        write(mesh.folder, "one")
        again = await mesh.run("deploy", "-f", spec)
        assert again.code == 0, again.out + again.err
        assert said(mesh) == "one"
        assert (await mesh.service("web"))["revision"] == first
    finally:
        await mesh.down()
        if left := images(project):
            subprocess.run(["docker", "rmi", "-f", *left], capture_output=True, check=True)


def pid_of(container: str) -> str:
    command = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
