"""A Docker Swarm for tests: engines in network namespaces of this machine, joined by a bridge.

Each engine has its own folders, socket, host name and address. The test process reaches all of
them by the bridge's own address.
"""

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.ports import worker_number
from tests.support.waiting import wait_until_blocking

FIRST_NETWORK = 77
"""The third number of the addresses of the first Swarm of the first worker of pytest-xdist."""
NETWORKS = 20
"""How many Swarms a worker may run at the same time, each with a number of its part."""
WORKERS = 8
"""How many workers may run Swarms at the same time."""
BRIDGE_NUMBER = 254
"""The last number of the bridge's own address."""
_numbers = itertools.count()
START_SECONDS = 60.0
"""Seconds for an engine to start on a busy machine."""


def run(*words: str, check: bool = True) -> str:
    """Run a command and return its output."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


class OwnNode:
    """One engine of the Swarm. `number` is the last part of its address."""

    def __init__(self, bridge: str, network: str, name: str, number: int) -> None:
        self.name = name
        self.address = f"{network}.{number}"
        self.root = Path(f"/tmp/{bridge}-{number}")
        self.host = f"unix://{self.root}/engine.sock"
        self.namespace = self.root.name
        self._bridge = bridge
        self._network = network
        self._link = f"{bridge}-{number}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bridge(self) -> str:
        """The address of this host on the bridge between the nodes."""
        return f"{self._network}.{BRIDGE_NUMBER}"

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command, to run it on the node."""
        return ("nsenter", f"--net=/var/run/netns/{self.namespace}")

    def docker(self, *words: str, check: bool = True) -> str:
        """Run the Docker client against the engine."""
        return run("docker", "-H", self.host, *words, check=check)

    def start(self) -> None:
        """Create its network and start the engine."""
        self.root.mkdir(mode=0o711)
        run("ip", "netns", "add", self.namespace)
        run(
            "ip", "link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self.namespace
        )
        run("ip", "link", "set", self._link, "master", self._bridge, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", f"{self._network}.{BRIDGE_NUMBER}"),
        ):
            run(*self.inside, "ip", *words)
        self.run_engine()

    def run_engine(self) -> None:
        """Start the engine."""
        engine = (
            f"dockerd --data-root {self.root}/data --exec-root {self.root}/exec "
            f"--pidfile {self.root}/engine.pid --host {self.host} --bip 172.31.250.1/24 "
            "--default-address-pool base=10.215.0.0/16,size=24 "
            "--insecure-registry 10.214.0.0/16"
        )
        # The engine keeps its network namespaces in /var/run/docker, and its name is the host's.
        script = f"hostname {self.name}; mount -t tmpfs tmpfs /var/run/docker; exec {engine}"
        with (self.root / "engine.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, "unshare", "-m", "-u", "sh", "-c", script], stdout=log, stderr=log
            )
        wait_until_blocking(self._answers, START_SECONDS, f"engine {self.name}", interval=0.1)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "engine.log").read_text()[-2000:]
        return bool(self.docker("version", "-f", "{{.Server.Version}}", check=False))

    def cut(self) -> None:
        """Cut the node from all others."""
        run("ip", "link", "set", self._link, "down")

    def connect(self) -> None:
        """End what `cut` began."""
        run("ip", "link", "set", self._link, "up")

    def load(self, image: str) -> None:
        """Copy an image from the shared engine."""
        environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
        save = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, env=environment)
        with save:
            load = ["docker", "-H", self.host, "load"]
            subprocess.run(load, stdin=save.stdout, capture_output=True, check=True)

    def halt(self) -> None:
        """Stop the engine, and with it its containers; keep what it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def kill(self) -> None:
        """Kill the engine, its helpers and its containers at once; keep what it has on disk."""
        assert self._process is not None
        engine = self._process.pid
        running = self.docker("ps", "-q").split()
        containers = (
            self.docker("inspect", "-f", "{{.State.Pid}}", *running).split() if running else []
        )
        for pid in (engine, *_sharing_mounts(engine), *map(int, containers)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        """Stop the engine with its containers, and remove what it has."""
        if self._process is not None and self._process.poll() is None:
            left = self.docker("ps", "-aq", check=False).split()
            if left:
                self.docker("rm", "-f", *left, check=False)
        self.halt()
        run("ip", "netns", "delete", self.namespace, check=False)
        run("umount", "-l", f"{self.root}/data", check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def _sharing_mounts(engine: int) -> list[int]:
    """Return the other processes in the mount namespace that an engine made for itself."""
    namespace = os.readlink(f"/proc/{engine}/ns/mnt")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != engine:
            with suppress(OSError):
                if os.readlink(entry / "ns/mnt") == namespace:
                    found.append(int(entry.name))
    return found


@contextmanager
def own_engines(names: Sequence[str]) -> Iterator[list[OwnNode]]:
    """Run engines of these names that reach each other and are in no Swarm."""
    number = next(_numbers) % NETWORKS
    first = FIRST_NETWORK + NETWORKS * (worker_number() % WORKERS)
    bridge, network = f"os{os.getpid()}{chr(ord('a') + number)}", f"10.214.{first + number}"
    accept = ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
    with ExitStack() as end:
        run("ip", "link", "add", bridge, "type", "bridge")
        end.callback(run, "ip", "link", "delete", bridge)
        run("ip", "addr", "add", f"{network}.{BRIDGE_NUMBER}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        run("iptables", "-w", "-I", *accept)
        end.callback(run, "iptables", "-w", "-D", *accept)
        nodes = [OwnNode(bridge, network, name, at) for at, name in enumerate(names, 1)]
        for node in nodes:
            end.callback(node.stop)
            node.start()
        yield nodes


@contextmanager
def own_swarm(names: Sequence[str], image: str, managers: int = 1) -> Iterator[Sequence[OwnNode]]:
    """Run a Swarm of these nodes, the first ones of which are managers; each has the image."""
    with own_engines(names) as nodes:
        for node in nodes:
            node.load(image)
        manager, *others = nodes
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        for number, node in enumerate(others, 1):
            role = "manager" if number < managers else "worker"
            token = manager.docker("swarm", "join-token", "-q", role)
            node.docker("swarm", "join", "--token", token, f"{manager.address}:2377")
        yield nodes
