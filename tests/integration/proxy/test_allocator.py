"""Memory of bodies: a process that takes and frees it again and again keeps its pages."""

import platform
import subprocess
import sys

import pytest

ROUNDS = 200
TAKE_AND_FREE = f"""
import resource, sys
from proxy.worker import allocator, worker

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "worker":
    worker.prepare_process()
for size in (100_000, 250_000):
    for turn in range(2):
        before = faults()
        for _ in range({ROUNDS}):
            pieces = [bytes(size) for _ in range(6)]
            pieces = None
    print(faults() - before)
"""


def count_faults(process: str) -> list[int]:
    """Return the page faults of all rounds for bodies of each size."""
    command = [sys.executable, "-c", TAKE_AND_FREE, process]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_a_worker_keeps_the_memory_of_bodies() -> None:
    assert all(faults < ROUNDS for faults in count_faults("worker"))
    # Without that, each round takes most of the pages from the kernel.
    assert max(count_faults("other")) > 10 * ROUNDS
