"""A lost state directory, and its restore from a backup."""

import shutil
import tempfile
import uuid
from pathlib import Path

from tests.support.mesh import TestMesh, service_text


async def test_a_lost_state_is_restored_from_a_backup() -> None:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    mesh = TestMesh(folder, "process", environment={"PROJECT": f"e2e-{uuid.uuid4().hex[:6]}"})
    file = str(folder / "backup.tar.gz")
    try:
        text = service_text("web", "process", "none", deploy="{replicas: 1}")
        assert (await mesh.up(f"name: {mesh.environment['PROJECT']}\nservices:\n{text}")).code == 0
        assert (await mesh.run("scale", "web", "2")).code == 0
        await mesh.until("web", lambda s: s["ready"] == 2, 30)
        done = await mesh.run("backup", file)
        assert done.code == 0, done.err
        refused = await mesh.run("restore", file, "--replace")
        assert (refused.code, "a daemon runs in" in refused.err) == (1, True)

        await mesh.kill_all()
        shutil.rmtree(mesh.state)
        done = await mesh.run("restore", file)
        assert done.code == 0, done.err
        up = await mesh.run(
            "up", "--adopt", "--runtime", "process", "--listen", mesh.address,
            "--metrics", "127.0.0.1:0", "--workers", "1", "--detach",
        )  # fmt: skip
        assert up.code == 0, up.err
        _, web = await mesh.until("web", lambda s: s["ready"] == 2, 30)
        assert web["override"] == 2
        assert "deploy" in [event["kind"] for event in await mesh.events()]
    finally:
        await mesh.end()
        shutil.rmtree(folder, ignore_errors=True)
