"""Cost of a request over HTTP/2, with and without TLS, compared with other proxies.

Each is pinned to one core; they take turns, several times. Origin (nginx) and client (h2load of
nghttp2) share the other core. The measure is the CPU time that the kernel counted for the proxy's
processes, divided by the requests answered. Compare only ratios within one run.

    python -m bench.http2 [--rounds 3] [--seconds 3] [--only nginx,ours] [--scenes TLS]
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scenes import HEADERS, ClientFailed
from bench.secure import arguments, run

FIELDS: Final = 5
"""Fields of a request in addition to the four pseudo-fields: nine in total."""


@dataclass(frozen=True)
class Scene:
    """One scene.

    - `tls`: whether the client uses TLS; otherwise it has prior knowledge
    - `connections`, `streams`: connections, and concurrent requests on each
    """

    name: str
    tls: bool
    path: str = "/api/orders"
    connections: int = 16
    streams: int = 16

    def play(self, port: int, seconds: float, home: Path, core: int) -> int:
        """Run h2load; return the number of successful requests. Raises ClientFailed."""
        del home
        scheme = "https" if self.tls else "http"
        command = ["taskset", "-c", str(core), "h2load", "-t1", f"-c{self.connections}"]
        command += [f"-m{self.streams}", f"-D{max(1, round(seconds))}"]
        names = [name for name in HEADERS if name != "User-Agent"][: FIELDS - 1]
        for name in names:
            command += ["-H", f"{name}: {HEADERS[name]}"]
        command.append(f"{scheme}://127.0.0.1:{port}{self.path}")
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=seconds + 20
            )
        except subprocess.TimeoutExpired:
            # A connection whose handshake is complete only after the duration sends for ever.
            raise ClientFailed("h2load did not end: it connected too late") from None
        return parse(done.stdout, done.stderr)


SCENES: Final = (
    Scene("small GET, TLS, 16 conns x 16 streams", tls=True),
    Scene("small GET, prior knowledge, 16 conns x 16 streams", tls=False),
    Scene("small GET, TLS, 64 conns x 1 stream", tls=True, connections=64, streams=1),
    Scene("100 KiB response, TLS, 8 conns x 4 streams", True, "/files/100k", 8, 4),
)


def parse(text: str, error: str = "") -> int:
    """Return the number of successful requests in h2load's report. Raises ClientFailed if any
    failed."""
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if counts is None or codes is None:
        raise ClientFailed(error.strip() or text)
    wrong = sum(int(codes[group]) for group in (2, 3, 4)) + int(counts[2]) + int(counts[4])
    if wrong:
        raise ClientFailed(f"{counts[0]}; {codes[0]}")
    return int(counts[1])


def main() -> int:
    """Measure all scenes and print a table for each."""
    options = arguments("CPU time of requests over HTTP/2.", 21_300).parse_args()
    return run(options, [(scene.name, scene.play, scene.tls) for scene in SCENES])


if __name__ == "__main__":
    sys.exit(main())
