"""Cost of HTTP/1.1 over TLS, of new handshakes, and the memory of an idle TLS connection, compared
with other proxies.

Each is pinned to one core; they take turns, several times. Origin (nginx) and client (wrk) share
the other core. The measure is the CPU time that the kernel counted for the proxy's processes,
divided by the requests answered. All speak TLS 1.3. The client of the handshakes is
`openssl s_time`, which never resumes a session; wrk does. Compare only ratios within one run.

    python -m bench.tls [--rounds 3] [--seconds 3] [--only nginx,ours] [--scenes 64] [--idle 1000]
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.idle import per_connection
from bench.scenes import ClientFailed, Scene, play
from bench.secure import SecureBench, arguments, run

SCENES: Final = (
    Scene("small GET over TLS, unique, 64 conns", unique=True, tls=True),
    Scene("100 KiB response over TLS", path="/files/100k", connections=16, tls=True),
)
HANDSHAKES: Final = "handshake and small GET, 8 clients"
CLIENTS: Final = 8
"""Processes that connect in turn, enough to keep one core busy."""
PAGE: Final = "/api/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Rest:"
"""The target, followed by fields: `s_time` itself sends HTTP/1.0, which Envoy refuses. The last
field gets what `s_time` adds."""
FEWEST_BYTES: Final = 150
"""Bytes of an answer of the origin with its body, at least; those of an error have other sizes."""
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

    loads = [(scene.name, Wrk(scene), True) for scene in SCENES]
    return run(options, [*loads, (HANDSHAKES, connect, True)], measure_idle)


class Wrk:
    """The load of a scene by wrk, see `bench.secure.Load`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __call__(self, port: int, seconds: float, home: Path, core: int) -> int:
        load = play(self._scene, port, seconds, home, core)
        return load.requests - load.errors


def connect(port: int, seconds: float, home: Path, core: int) -> int:
    """Make a new TLS connection for each request. Return their number. Raises ClientFailed."""
    del home
    command = ["taskset", "-c", str(core), "openssl", "s_time", "-new", "-tls1_3"]
    command += ["-connect", f"127.0.0.1:{port}", "-time", str(max(1, round(seconds)))]
    command += ["-www", PAGE]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(CLIENTS)
    ]
    texts = [each.communicate(timeout=seconds + 60)[0] for each in clients]
    total = 0
    for text in texts:
        found = re.search(r"(\d+) connections in \d+ real seconds, (\d+) bytes read", text)
        if found is None or int(found[2]) < FEWEST_BYTES:
            raise ClientFailed(text[-500:])
        total += int(found[1])
    return total


class Idle:
    """Idle connections: a call returns the memory of one in KiB."""

    def __init__(self, connections: int) -> None:
        self._connections = connections

    def __call__(self, pid: int, port: int, home: Path) -> float:
        del home
        return per_connection(pid, port, self._connections, tls=True)[1] / 1024


if __name__ == "__main__":
    sys.exit(main())
