"""A deployment that does not fit is rejected before anything starts; a diff shows its impact."""

import json

import pytest

from tests.support.mesh import service_text
from tests.support.scaled import scaled_mesh

pytestmark = pytest.mark.slow
RESERVED = "{{replicas: {}, resources: {{reservations: {{memory: {}}}}}}}"


def text(replicas: int, memory: str, quota: str = "{}", version: str = "1") -> str:
    service = service_text(
        "web", "process", "none", deploy=RESERVED.format(replicas, memory),
        environment=f"{{VERSION: '{version}'}}",
    )  # fmt: skip
    return f"name: fits\nx-mesh: {{quota: {quota}}}\nservices:\n{service}"


async def test_admission_errors_and_the_impact_in_a_diff() -> None:
    async with scaled_mesh() as mesh:
        path = mesh.folder / "other.yml"
        done = await mesh.up(text(2, "1m"))
        assert done.code == 0, done.err
        assert "warning: service web: image none is ignored" in done.err

        path.write_text(text(2, "1m") + "    user: nobody\n")
        diff = await mesh.run("diff", "-f", str(path))
        assert "warning: service web: image none is ignored" in diff.err
        assert "; user nobody is ignored; it runs as the user of meshd" in diff.err
        path.write_text(text(9, "900g"))
        for command in ("deploy", "diff"):
            refused = await mesh.run(command, "-f", str(path))
            assert refused.code == (1 if command == "deploy" else 2)
            assert "the project needs 8100.00 GiB (web 9 × 900.00 GiB), and node" in refused.err
        path.write_text(text(3, "64m", "{replicas: 2}"))
        refused = await mesh.run("deploy", "-f", str(path))
        assert "needs 3 replicas, and its quota is 2 (3 × web)" in refused.err
        elsewhere = "{replicas: 2, placement: {constraints: [node.labels.disk==ssd]}}"
        service = service_text("web", "process", "none", deploy=elsewhere)
        path.write_text(f"name: fits\nservices:\n{service}")
        refused = await mesh.run("deploy", "-f", str(path))
        assert refused.code == 1
        assert "no node meets deploy.placement.constraints node.labels.disk==ssd" in refused.err
        path.write_text(
            "name: fits\nservices: {web: {command: x, x-mesh: "
            "{routes: [{host: a.test, tls: auto}]}}}\n"
        )
        refused = await mesh.run("deploy", "-f", str(path))
        assert "the route a.test has tls: auto" in refused.err
        assert "set x-mesh.tls.acme" in refused.err
        assert (await mesh.service("web"))["wanted"] == 2

        path.write_text(text(2, "1m", "{replicas: 2}"))
        assert "its quota becomes 2 replicas" in (await mesh.run("diff", "-f", str(path))).out
        assert (await mesh.run("deploy", "-f", str(path))).code == 0
        by_hand = await mesh.run("scale", "web", "3")
        assert (by_hand.code, "its quota is 2" in by_hand.err) == (1, True)
        assert (await mesh.run("diff", "-f", str(path))).code == 0

        path.write_text(text(2, "1m", "{replicas: 2}", version="2"))
        diff = await mesh.run("diff", "-f", str(path), "-o", "json")
        assert diff.code == 1, diff.err
        peak, order, *_ = json.loads(diff.out)["outlook"]
        assert peak.startswith("at most 4 replicas, 4 MiB at once; now 2 replicas, 2 MiB")
        assert order.startswith("fits/web: drained in this order: fits-web-")
        assert order.endswith("; at least 2 stay ready")
