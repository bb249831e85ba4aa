"""`meshd explain` and `meshd scale --for`, after real decisions on real traffic."""

import json
import time

import pytest

from tests.support.load import Load
from tests.support.scaled import scaled_mesh, up
from tests.support.waiting import elapse

pytestmark = pytest.mark.slow


async def test_explain_now_in_the_past_and_after_a_restart() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 1, max: 4, concurrency: 2, rps: 500, down_window: 60s}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
        await elapse(2.5, "decisions without load are recorded once a second")
        calm = time.strftime("%Y-%m-%dT%H:%M:%S")
        async with Load(mesh.address, 60, 130, path="/?ms=100"):
            await mesh.until("web", lambda s: s["wanted"] >= 3, 30)
            await elapse(2.0, "decisions under load are recorded once a second")
        shown = (await mesh.run("explain", "web")).out
        for part in (
            "objectives  2 requests in flight per replica",
            "signals ",
            "model ",
            "candidates  ",
            "concurrency needs",
            "rejected ",
            "for rps: concurrency needs",
        ):
            assert part in shown, shown
        mesh.kill(mesh.child("meshd.daemon"))
        await mesh.until("web", lambda s: s["ready"] >= 3, 30)
        then = json.loads((await mesh.run("explain", "web", "--at", calm, "-o", "json")).out)
        assert then["decision"]["desired"] == 1
        now = json.loads((await mesh.run("explain", "web", "-o", "json")).out)
        assert now["decision"]["desired"] >= 3
        assert any(each["kind"] == "scale.up" for each in now["decisions"])

        done = await mesh.run("scale", "web", "2", "--for", "60s")
        assert done.code == 0, done.err
        await mesh.until("web", lambda s: s["override"] == 2 and s["wanted"] == 2, 5)
        shown = (await mesh.run("explain", "web")).out
        assert "set to 2 by hand until " in shown, shown
        done = await mesh.run("scale", "web", "3", "--for", "1s")
        assert done.code == 0, done.err
        took, _ = await mesh.until("web", lambda s: s["override"] is None, 20)
        print(f"override ended {took:.1f} s later")
