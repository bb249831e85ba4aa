"""Cost of HTTP/1.1 over TLS, of new handshakes, and the memory of an idle TLS connection, compared
with other proxies.

Each is pinned to one core; they take turns, several times. Origin (nginx) and client (wrk) share
the other core. The measure is the CPU time that the kernel counted for the proxy's processes,
divided by the requests answered. wrk offers no session, so that a connection for each request is a
full handshake of TLS 1.3. Compare only ratios within one run.

    python -m bench.tls [--rounds 3] [--seconds 3] [--only nginx,ours] [--scenes 64] [--idle 1000]
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.idle import per_connection
from bench.scenes import Scene, play
from bench.secure import SecureBench, arguments, run

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

    def measure_idle(bench: SecureBench, names: Sequence[str]) -> None:
        if options.idle:
            for name in names:
                bench.serve(name, Idle(options.idle), IDLE_SCENE, tls=True)
            print(bench.results.table(IDLE_SCENE, names, "KiB each"), flush=True)

    return run(options, [(scene.name, Wrk(scene), True) for scene in SCENES], measure_idle)


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
