"""The framing suite of the folder that `MESHD_CONFORMANCE` names, if it is set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port

SUITE = Path(os.environ.get("MESHD_CONFORMANCE", "")) / "framing.py"
SERVE = """
import asyncio, sys, uvloop
from proxy.request.data_plane import DataPlane
from proxy.wire.snapshot import *

async def main(port, origin):
    loop = asyncio.get_running_loop()
    plane = DataPlane(0, loop)
    shop = Service("shop", "1", (Endpoint("e", "127.0.0.1", origin),))
    everything = Route("all", (Target("shop"),))
    plane.install(Snapshot(Generation(1, 1), (shop,), (everything,)))
    factory = plane.protocol_factory(Listener(f"127.0.0.1:{port}"))
    await loop.create_server(factory, "127.0.0.1", port)
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


if "MESHD_CONFORMANCE" in os.environ:

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_the_framing_suite_finds_no_deviation(tmp_path: Path) -> None:
        port, origin = free_port(), free_port()
        proxy = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), str(origin)], stdout=subprocess.PIPE
        )
        try:
            assert proxy.stdout is not None
            proxy.stdout.readline()
            results = tmp_path / "results.json"
            subprocess.run(
                [
                    sys.executable,
                    SUITE,
                    "--target",
                    f"127.0.0.1:{port}",
                    "--origin",
                    f"127.0.0.1:{origin}",
                    "--json",
                    results,
                ],
                timeout=280,
                check=False,
            )
            found = json.loads(results.read_text())["summary"]
        finally:
            proxy.terminate()
            proxy.wait(10)
            assert proxy.stdout is not None
            proxy.stdout.close()
        print(found)
        assert (found["dangerous"], found["fail"], found["overstrict"]) == (0, 0, 0)
        assert found["lenient"] <= 8
