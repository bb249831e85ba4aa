"""meshd as a service of the Swarm, with the authority of the mesh in a secret."""

import base64
import json
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest

from tests.engine.test_swarm import APPLICATION, CALLER, serves
from tests.support.own_swarm import own_swarm, run
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.acceptance]


@pytest.mark.timeout(600)
async def test_meshd_is_a_service_of_the_swarm(tmp_path: Path, engine_image: str) -> None:
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    compose, authority = tmp_path / "compose.yml", tmp_path / "authority"
    compose.write_text(text)
    meshd = [sys.executable, "-m", "meshd"]
    authority.write_text(run(*meshd, "node", "authority", "--state", str(tmp_path / "none")))
    with own_swarm(["m1"], engine_image) as (node,):
        node.docker("secret", "create", "meshd-authority", str(authority))
        node.docker("config", "create", "shop.yml", str(compose))
        tops = {str(ROOT), sys.prefix, sys.base_prefix}
        mounted = tops | {each for each in sys.path if Path(each).is_dir()}
        mounts = [
            *(f"--mount=type=bind,src={each},dst={each},readonly" for each in mounted),
            f"--mount=type=bind,src={node.root},dst=/engine",
            "--mount=type=volume,src=meshd,dst=/var/lib/meshd",
        ]
        node.docker(
            "service", "create", "--detach", "--name", "meshd", "--mode", "global",
            "--constraint", "node.role==manager", "--network", "host",
            "--hostname", "{{.Node.Hostname}}", "--secret", "meshd-authority",
            "--config", "source=shop.yml,target=/shop.yml", "--workdir", str(ROOT),
            "--env", "DOCKER_HOST=unix:///engine/engine.sock",
            "--env", "MESHD_STATE=/var/lib/meshd",
            *mounts, engine_image, *meshd, "up", "-f", "/shop.yml", "--runtime", "swarm",
            "--listen", f"{node.address}:8080", "--lease", "prod",
            "--authority-file", "/run/secrets/meshd-authority",
        )  # fmt: skip
        what = lambda: node.docker("service", "logs", "--raw", "meshd")  # noqa: E731
        await wait_until(partial(serves, node.address, 8080, "first"), 60, what, interval=0.5)

        def records() -> bytes:
            names = node.docker("config", "ls", "--format", "{{.Name}}").split()
            parts = [name for name in names if name.startswith("meshd.records.")]
            data = [json.loads(node.docker("config", "inspect", part)) for part in parts]
            return b"".join(base64.b64decode(each[0]["Spec"]["Data"]) for each in data)

        await wait_until(records, 20, "the leader stores its state", interval=0.5)
        state = zlib.decompress(records()).decode()
        assert "authority_certificate" in state
        assert "authority_key" not in state
        assert authority.read_text().splitlines()[1] not in state
        (container,) = node.docker("ps", "-q", "--filter", "name=meshd.").split()
        shown = node.docker("exec", "-w", str(ROOT), container, *meshd, "ps", "-o", "json")
        assert {each["name"] for each in json.loads(shown)["services"]} == {"api", "web"}
        node.docker("exec", "-w", str(ROOT), container, *meshd, "down", "--all")
