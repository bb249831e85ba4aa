"""A Docker Engine of one test alone, which may be ended and started again."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OwnEngine:
    """An engine with folders, a socket and a network namespace of its own beside the shared
    one, with containers on the networks that are made for them.

    In the namespace, since an engine may delete the bridge called docker0 of wherever it runs,
    and with it another engine's.
    """

    def __init__(self, root: Path, live_restore: bool) -> None:
        self._root = root
        self._settings = root / "daemon.json"
        self._settings.write_text(json.dumps({"live-restore": live_restore}))
        self.host = f"unix://{root}/engine.sock"

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that is to run where the containers can be reached."""
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
        deadline = time.monotonic() + 60
        while self._ask("info").returncode != 0:
            assert self._process.poll() is None, (self._root / "engine.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the test's own engine does not start"
            time.sleep(0.1)

    def live_restore(self, on: bool) -> None:
        """Whether containers outlive it, from now on."""
        self._settings.write_text(json.dumps({"live-restore": on}))
        self._process.send_signal(signal.SIGHUP)
        form = "{{.LiveRestoreEnabled}}"
        deadline = time.monotonic() + 10
        while self._ask("info", "--format", form).stdout.strip() != str(on).lower().encode():
            assert time.monotonic() < deadline, "the test's own engine does not read its settings"
            time.sleep(0.05)

    def load(self, image: str) -> None:
        """Copy an image from the shared engine."""
        load = ["docker", "-H", self.host, "load"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(load, stdin=save.stdout, capture_output=True, check=True)

    def stop(self) -> None:
        """End it as a service manager would."""
        self._process.terminate()
        self._process.wait(60)

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
    """A running engine; afterwards nothing of it is left, its containers included."""
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
        # Its containerd may still be deleting what it had; rm does not mind.
        subprocess.run(["rm", "-rf", root], check=True)
