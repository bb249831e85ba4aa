"""`make fuzz`: fuzz each target in turn for FUZZ_SECONDS (60) in all, with atheris.

New inputs that reach new code go to a folder that is thrown away; what fails is written beside
the corpus of its target, to be committed with the fix.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def fuzz(name: str, seconds: int, found: str) -> None:
    """Fuzz one target; does not return."""
    import atheris

    sys.path[:0] = [str(ROOT), str(HERE.parent)]
    with atheris.instrument_imports(
        include=["proxy.http1", "proxy.transport.proxy_header", "fuzz.targets"]
    ):
        from fuzz.targets import TARGETS
    corpus = HERE / "corpus" / name
    dictionary = HERE / "http.dict"
    options = [f"-max_total_time={seconds}", "-max_len=512", "-timeout=10", "-verbosity=0",
               f"-dict={dictionary}", f"-artifact_prefix={corpus}/failed-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, found, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz every target; return the largest exit code."""
    names = sorted(each.name for each in (HERE / "corpus").iterdir())
    seconds = max(1, int(os.environ.get("FUZZ_SECONDS", "60")) // len(names))
    worst = 0
    for name in names:
        print(f"fuzzing {name} for {seconds} s", flush=True)
        with tempfile.TemporaryDirectory() as found:
            command = [sys.executable, __file__, name, str(seconds), found]
            done = subprocess.run(command, cwd=ROOT, check=False)
        worst = max(worst, abs(done.returncode))
    return worst


if __name__ == "__main__":
    if len(sys.argv) == 4:
        fuzz(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    sys.exit(main())
