"""Cost of HTTP/1.1 over TLS, of new handshakes, and the memory of an idle TLS connection, compared
with other proxies.

Each is pinned to one core; they take turns, several times. Origin (nginx) and client (wrk) share
the other core. The measure is the CPU time that the kernel counted for the proxy's processes,
divided by the requests answered. wrk offers no session, so that a connection for each request is a
full handshake of TLS 1.3. Compare only ratios within one run.

    python -m bench.tls [--rounds 3] [--seconds 3] [--only nginx,ours] [--scenes 64] [--idle 1000]
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.contenders import origin
from bench.idle import per_connection
from bench.running import running
from bench.scenes import Scene, play
from bench.secure import SecureBench, arguments, chosen

SCENES: Final = (
    Scene("small GET over TLS, unique, 64 conns", unique=True, tls=True),
    Scene("handshake and small GET, 16 conns", bare=True, close=True, connections=16, tls=True),
    Scene("100 KiB response over TLS", path="/files/100k", connections=16, tls=True),
)
IDLE_SCENE: Final = "idle TLS connection"


def main() -> int:
    """Measure all scenes and print a table for each."""
    parser = arguments("CPU time of HTTP/1.1 over TLS.", 21_400)
    parser.add_argument("--idle", type=int, default=1000, help="idle connections; 0: none")
    options = parser.parse_args()
    names = chosen(options.only)
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        home = Path(text)
        os.chmod(home, 0o755)
        (home / "origin").mkdir()
        bench = SecureBench(home, options.port, options.seconds)
        command = origin(home / "origin", options.port)
        with running(command, options.port, bench.cores[-1:], home / "origin"):
            for scene in [scene for scene in SCENES if options.scenes in scene.name]:
                for _ in range(options.rounds):
                    for name in names:
                        bench.cost(name, scene.name, Wrk(scene), tls=True)
                print(bench.results.table(scene.name, names, "CPU µs per request"), flush=True)
            if options.idle:
                for name in names:
                    bench.serve(name, Idle(options.idle), IDLE_SCENE, tls=True)
                print(bench.results.table(IDLE_SCENE, names, "KiB each"), flush=True)
    for problem in bench.problems:
        print(f"problem: {problem}")
    return 1 if bench.problems else 0


class Wrk:
    """The load of a scene by wrk, see `bench.secure.Load`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __call__(self, port: int, seconds: float, home: Path, core: int) -> int:
        load = play(self._scene, port, seconds, home, core)
        return load.requests - load.errors


class Idle:
    """Idle connections: a call returns the memory of one in KiB."""

    def __init__(self, connections: int) -> None:
        self._connections = connections

    def __call__(self, pid: int, port: int, home: Path) -> float:
        del home
        return per_connection(pid, port, self._connections, tls=True)[1] / 1024


if __name__ == "__main__":
    sys.exit(main())
