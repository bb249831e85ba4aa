"""Latency at a constant rate below saturation, measured with h2load (wrk has no rate limit)."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.scenes import HEADERS, ClientFailed

CONNECTIONS: Final = 64


def p99(port: int, rate: float, seconds: int, home: Path, core: int) -> float:
    """Return the 99th percentile of the latency in seconds, at about `rate` requests per second."""
    log = home / "h2load.log"
    log.unlink(missing_ok=True)
    each = max(1, round(rate / CONNECTIONS))
    command = ["taskset", "-c", str(core), "h2load", "--h1", f"-c{CONNECTIONS}", "-t1", "-m1"]
    command += [f"-D{seconds}", f"--rps={each}", f"--log-file={log}"]
    for name, value in HEADERS.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{port}/api/orders")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=seconds + 60
    )
    if done.returncode or not log.exists():
        raise ClientFailed(done.stderr.strip() or done.stdout)
    times = []
    for line in log.read_text().splitlines():
        _, status, micros = line.split()[:3]
        if status != "200":
            raise ClientFailed(f"an answer had status {status}")
        times.append(int(micros) / 1e6)
    if not times:
        raise ClientFailed("h2load made no request")
    times.sort()
    return times[int(len(times) * 0.99)]


def available() -> bool:
    """Return whether h2load is installed."""
    return shutil.which("h2load") is not None
