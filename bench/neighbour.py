"""A neighbour of the measured proxy: a process on the same core that uses the caches by itself.

On a machine with other work a proxy finds little of its code and data in the caches when a request
arrives. `bench.proxy --neighbour` runs one of these on each core during the measurement, so that
this cost is part of the result. It computes all the time with the same priority as the proxy.

    python -m bench.neighbour
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

DATA: Final = 4 * 1024 * 1024
"""Bytes that it reads again and again: twice the usual second-level cache of a core."""
LINE: Final = 64
"""Bytes of a cache line."""
PASSES: Final = 10
"""Passes over the data for each compilation, so that both take about the same time."""
SETTLE: Final = 10.0
"""Seconds after which a neighbour that does not end by itself is killed."""


def use_caches(rounds: int | None = None) -> None:
    """Replace the contents of the caches until the process is ended, or for some rounds. The data
    caches are filled with `DATA`, those for code with the parser and the compiler of Python."""
    data = bytes(DATA)
    source = Path(contextlib.__file__).read_text()
    while rounds is None or rounds > 0:
        for _ in range(PASSES):
            data[::LINE]
        compile(source, "source", "exec")
        rounds = None if rounds is None else rounds - 1


@contextlib.contextmanager
def neighbours(cores: Sequence[int]) -> Iterator[None]:
    """Run a neighbour on each core during the block."""
    command = [sys.executable, "-m", "bench.neighbour"]
    running = [
        subprocess.Popen(["taskset", "-c", str(core), *command], start_new_session=True)
        for core in cores
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(SETTLE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    use_caches()
