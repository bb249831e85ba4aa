"""Cost of passing TCP connections on, compared with HAProxy in TCP mode.

Each is pinned to one core; they take turns, several times. Origin (nginx) and client (wrk) share
the other core. The measure is the CPU time that the kernel counted for the proxy's processes,
divided by the requests that went through. Compare only ratios within one run.

    python -m bench.tcp [--rounds 5] [--seconds 3] [--only haproxy,ours] [--scenes 10]
"""

import argparse
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.contenders import COMPILED, Setting, installed, max_connections, origin
from bench.kernel import cpu_seconds, memory_bytes
from bench.proxy import quotient
from bench.running import NotServing, check, running
from bench.scenes import ClientFailed, Scene, play
from proxy.ipc.config import SupervisorConfig
from proxy.wire.snapshot import Endpoint, Generation, Listener, Service, Snapshot

REFERENCE: Final = "haproxy"
SCENES: Final = (
    Scene("10 MiB bodies, 4 conns", path="/files/10m", connections=4, bare=True),
    Scene("100 KiB bodies, 16 conns", path="/files/100k", connections=16, bare=True),
    Scene("small messages, 64 conns", connections=64, bare=True),
    Scene("small message, a connection each", connections=16, bare=True, close=True),
)
FEWEST: Final = 5
"""Requests per sample; a sample with fewer means that something is wrong."""


def ours(setting: Setting) -> list[str]:
    service = Service(
        name="db",
        fingerprint="1",
        endpoints=(Endpoint("db-1", "127.0.0.1", setting.origin),),
        protocol="tcp",
    )
    address = f"127.0.0.1:{setting.port}"
    listeners = (Listener(address, kind="published", service="db"),)
    snapshot = Snapshot(Generation(), services=(service,), listeners=listeners)
    config = SupervisorConfig(listen=(address,), workers=setting.workers, snapshot=snapshot)
    path = setting.write("config.json", msgspec.json.encode(config).decode())
    return [sys.executable, "-m", "proxy", "--config", path]


def ours_compiled(setting: Setting) -> list[str]:
    return ["env", f"PYTHONPATH={COMPILED}", sys.executable, "-P", *ours(setting)[1:]]


def haproxy(setting: Setting) -> list[str]:
    return _haproxy(setting, "")


def haproxy_splice(setting: Setting) -> list[str]:
    return _haproxy(setting, "option splice-auto")


def _haproxy(setting: Setting, option: str) -> list[str]:
    pipes = "maxpipes 256" if option else ""
    text = f"""
global
  nbthread {setting.workers}
  maxconn {max_connections() - 300}
  {pipes}
defaults
  mode tcp
  {option}
  timeout connect 2s
  timeout client 3600s
  timeout server 3600s
frontend in
  bind 127.0.0.1:{setting.port} backlog 4096
  default_backend out
backend out
  balance leastconn
  server origin 127.0.0.1:{setting.origin}
"""
    return ["haproxy", "-db", "-f", setting.write("haproxy.cfg", text)]


CONTENDERS: Final[dict[str, Callable[[Setting], list[str]]]] = {
    "ours": ours,
    "ours-compiled": ours_compiled,
    "haproxy": haproxy,
    "haproxy-splice": haproxy_splice,
}


def main() -> int:
    """Measure all scenes and print a table for each."""
    options = _arguments().parse_args()
    wanted = options.only.split(",") if options.only else list(CONTENDERS)
    names = [n for n in CONTENDERS if n in wanted and installed(n.removesuffix("-splice"))]
    scenes = [scene for scene in SCENES if options.scenes in scene.name]
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        home = Path(text)
        os.chmod(home, 0o755)
        (home / "origin").mkdir()
        command = origin(home / "origin", options.port)
        with running(command, options.port, cores[-1:], home / "origin"):
            for scene in scenes:
                samples: dict[str, list[float]] = {name: [] for name in names}
                for _ in range(options.rounds):
                    for name in names:
                        samples[name].append(_cost(name, scene, options, home, cores))
                _print_table(f"{scene.name} (CPU µs each)", samples)
            if options.memory:
                _print_table(
                    f"{options.memory} idle connections (KiB each)",
                    {name: [_memory(name, options, home, cores)] for name in names},
                )
    return 0


def _cost(
    name: str, scene: Scene, options: argparse.Namespace, home: Path, cores: list[int]
) -> float:
    """Take one sample of the CPU time per request, in microseconds."""
    port = options.port + 1
    with tempfile.TemporaryDirectory(dir=home) as text:
        at = Path(text)
        os.chmod(at, 0o755)
        with running(CONTENDERS[name](Setting(at, port, options.port)), port, cores[:1], at) as pid:
            check(port, options.port)
            play(scene, port, 1, at, cores[-1])
            before = cpu_seconds(pid)
            load = play(scene, port, options.seconds, at, cores[-1])
            spent = cpu_seconds(pid) - before
    if load.requests < FEWEST or load.errors:
        raise ClientFailed(f"{name}: {load.requests} requests, {load.errors} errors")
    return spent / load.requests * 1e6


def _memory(name: str, options: argparse.Namespace, home: Path, cores: list[int]) -> float:
    """Return the memory of an idle connection in KiB."""
    port = options.port + 1
    with tempfile.TemporaryDirectory(dir=home) as text:
        at = Path(text)
        os.chmod(at, 0o755)
        with running(CONTENDERS[name](Setting(at, port, options.port)), port, cores[:1], at) as pid:
            check(port, options.port)
            before = memory_bytes(pid)
            held = []
            for _ in range(options.memory):
                sock = socket.create_connection(("127.0.0.1", port))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if not sock.recv(4096):
                    raise NotServing(f"{name} closed a connection")
                held.append(sock)
            size = memory_bytes(pid) - before
            for sock in held:
                sock.close()
    return size / options.memory / 1024


def _print_table(title: str, samples: dict[str, list[float]]) -> None:
    print(f"\n{title}; ratio to {REFERENCE}")
    base = samples.get(REFERENCE)
    for name, found in sorted(samples.items(), key=lambda item: median(item[1])):
        spread = f"{min(found):.1f}..{max(found):.1f}"
        ratio = f"{quotient(found, base):6.2f}x" if base else ""
        print(f"  {name:15}{median(found):10.1f}  {spread:>20} {ratio}", flush=True)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="CPU time of TCP connections that pass through.")
    parser.add_argument("--rounds", type=int, default=5, help="samples per scene and proxy")
    parser.add_argument("--seconds", type=float, default=3.0, help="load per sample")
    parser.add_argument("--only", default="", help="proxies, separated by commas")
    parser.add_argument("--scenes", default="", help="only scenes with this in their name")
    parser.add_argument("--memory", type=int, default=1000, help="idle connections; 0: none")
    parser.add_argument("--port", type=int, default=21_100, help="first of two ports")
    return parser


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    sys.exit(main())
