"""A machine that is too small: priority decides, and the shortage is reported."""

import os

import pytest

from tests.support.load import Load
from tests.support.mesh import service_text
from tests.support.scaled import events_of_kind, scaled_mesh
from tests.support.waiting import elapse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def test_the_higher_priority_service_gets_the_capacity() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    async with scaled_mesh() as mesh:
        text = "name: scaled\nservices:\n"
        for name, priority in (("shop", 10), ("batch", 0)):
            scale = f"{{min: 1, max: 6, concurrency: 1, priority: {priority}}}"
            text += service_text(
                name, "process", "none",
                policy=f"{{routes: [/{name}], scale: {scale}}}",
                deploy=f"{{resources: {{reservations: {{memory: {memory // 6}b}}}}}}",
            )  # fmt: skip
        done = await mesh.up(text)
        assert done.code == 0, done.out + done.err
        await elapse(6.0, "the mesh lists the nodes every five seconds")
        async with Load(mesh.address, 60, 330, path="/batch?ms=100"):
            await mesh.until("batch", lambda s: s["ready"] == 5, 20)
            async with Load(mesh.address, 60, 250, path="/shop?ms=100"):
                await mesh.until("shop", lambda s: s["ready"] >= 4, 30)
                await mesh.until("batch", lambda s: s["wanted"] <= 2, 30)
        short = [event["text"] for event in await events_of_kind(mesh, "scale.short")]
        print(short)
        assert any("only: a replica needs" in line for line in short)
        explained = (await mesh.run("explain", "batch")).out
        assert "but capacity for" in explained, explained
