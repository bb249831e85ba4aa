"""A Docker Engine for one test alone, which the test may stop and start."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.support.mesh import TestMesh
from tests.support.waiting import wait_until_blocking


class OwnEngine:
    """An engine with its own folders, socket and network namespace, next to the shared engine.

    It needs the namespace because an engine may delete the bridge docker0, which could be the
    shared engine's.
    """

    def __init__(self, root: Path, live_restore: bool) -> None:
        self._root = root
        self._settings = root / "daemon.json"
        self._settings.write_text(json.dumps({"live-restore": live_restore}))
        self.host = f"unix://{root}/engine.sock"

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command, to run it where the containers can be reached."""
        return ("nsenter", f"--net=/var/run/netns/{self._root.name}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = [
            "--data-root", f"{self._root}/data", "--exec-root", f"{self._root}/exec",
            "--pidfile", f"{self._root}/engine.pid", "--host", self.host,
            "--config-file", str(self._settings), "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--ip-masq=false",
            "--default-address-pool", "base=10.213.0.0/16,size=24",
        ]  # fmt: skip
        with (self._root / "engine.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self.inside, "dockerd", *arguments], stdout=output, stderr=output
            )

        def answers() -> bool:
            assert self._process.poll() is None, (self._root / "engine.log").read_text()[-2000:]
            return self._ask("info").returncode == 0

        wait_until_blocking(answers, 15, "the test's own engine answers", interval=0.1)

    def live_restore(self, on: bool) -> None:
        """Set whether containers outlive the engine, from now on."""
        self._settings.write_text(json.dumps({"live-restore": on}))
        self._process.send_signal(signal.SIGHUP)
        form = "{{.LiveRestoreEnabled}}"
        wait_until_blocking(
            lambda: self._ask("info", "--format", form).stdout.strip() == str(on).lower().encode(),
            2.5, "the test's own engine has read its settings", interval=0.05,
        )  # fmt: skip

    def load(self, image: str) -> None:
        """Copy an image from the shared engine."""
        load = ["docker", "-H", self.host, "load"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(load, stdin=save.stdout, capture_output=True, check=True)

    def stop(self) -> None:
        """Stop it as a service manager would."""
        self._process.terminate()
        self._process.wait(60)

    def kill(self) -> None:
        """Kill it, as the kernel would if memory is short. Its containers end with its next
        start, unless it has live-restore."""
        self._process.kill()
        self._process.wait(60)
        (self._root / "engine.pid").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove its containers, which could outlive it."""
        left = self._ask("ps", "-aq").stdout.decode().split()
        if left:
            self._ask("rm", "-f", *left)

    def _ask(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = ["docker", "-H", self.host, *arguments]
        return subprocess.run(command, check=False, capture_output=True)


@contextmanager
def own_engine(live_restore: bool) -> Iterator[OwnEngine]:
    """Run an engine; remove it with its containers afterwards."""
    # A short path: containerd's sockets are named below it.
    root = Path(f"/tmp/oe-{os.getpid()}")
    root.mkdir(mode=0o711)
    engine = OwnEngine(root, live_restore)
    subprocess.run(["ip", "netns", "add", root.name], check=True)
    try:
        subprocess.run([*engine.inside, "ip", "link", "set", "lo", "up"], check=True)
        engine.start()
        try:
            yield engine
        finally:
            engine.clear()
            engine.stop()
    finally:
        subprocess.run(["ip", "netns", "delete", root.name], check=True)
        # With live-restore an engine leaves its data directory mounted on itself.
        subprocess.run(["umount", "-l", root / "data"], check=False, capture_output=True)
        # Its containerd may still be deleting files; rm ignores missing ones.
        subprocess.run(["rm", "-rf", root], check=True)


@asynccontextmanager
async def mesh_on(engine: OwnEngine) -> AsyncIterator[TestMesh]:
    """Yield a mesh for this engine, in its network namespace; end it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    environment = {"PROJECT": f"e2e-{uuid.uuid4().hex[:6]}", "DOCKER_HOST": engine.host}
    address = f"unix:{folder}/proxy.sock"
    made = TestMesh(folder, "docker", address, environment, inside=engine.inside)
    yield made
    try:
        await made.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
