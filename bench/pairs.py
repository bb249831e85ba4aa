"""Compare the cost of a request between this checkout and another one, in pairs of runs.

    python -m bench.pairs OTHER_CHECKOUT [--pairs 10] [--logic="--log"] [--proxy "unique, 64"]

Each checkout's own `bench.logic` (and with `--proxy`, `bench.proxy`) runs as a subprocess in its
directory, with the interpreter of its `.venv`. So the layout of the other checkout does not matter.
The two take turns, and the order changes with each pair: what else the machine does affects both
runs of a pair nearly alike. The result is the median of the ratios within the pairs, this checkout
to the other one (below 1: this one is faster), with the quartiles and the extremes.

The compiled form is compared if both checkouts have one (`make compile` in each, again after
every change).
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Final

HERE: Final = Path(__file__).parent.parent
TIMEOUT: Final = 900
"""Seconds for one run of a bench."""
FEWEST_PAIRS: Final = 10
"""Fewer pairs give a median that differs from run to run by more than most changes cost."""


class BenchFailed(Exception):
    """A bench of one of the checkouts failed; the text has its last output."""


@dataclass(frozen=True)
class Checkout:
    """A directory with a working copy of the project."""

    path: Path

    @property
    def python(self) -> str:
        """Its interpreter; this one if it has no virtual environment."""
        own = self.path / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    @property
    def compiled(self) -> Path:
        """Where `make compile` installs the compiled form."""
        return self.path / "build" / "compiled"

    def logic(self, compiled: bool, arguments: list[str]) -> dict[str, float]:
        """Return the µs per request of `bench.logic` (the best round), under an empty name."""
        if compiled:
            command = [self.python, "-P", "bench/logic.py", *arguments]
            found = self._run(command, f"{self.compiled}{os.pathsep}{self.path}")
        else:
            found = self._run([self.python, "-m", "bench.logic", *arguments], "")
        best = re.search(r"best ([\d.]+) µs", found)
        if best is None:
            raise BenchFailed(f"{self.path}: bench.logic printed no result: {found[-500:]}")
        return {"": float(best[1])}

    def proxy(self, compiled: bool, scenes: str, seconds: float) -> dict[str, float]:
        """Return the CPU µs per request by scene of `bench.proxy`, one round."""
        name = "ours-compiled" if compiled else "ours"
        with tempfile.TemporaryDirectory(prefix="pairs-") as home:
            file = Path(home) / "samples.json"
            self._run(
                [
                    self.python, "-m", "bench.proxy", "--only", name, "--scenes", scenes,
                    "--rounds", "1", "--seconds", str(seconds), "--idle", "0", "--json", str(file),
                ],
                "",
            )  # fmt: skip
            samples: dict[str, list[float]] = json.loads(file.read_text())
        return {key.partition(" | ")[0]: values[0] for key, values in samples.items() if values}

    def _run(self, command: list[str], python_path: str) -> str:
        """Run a command in the checkout; return its output. Raises BenchFailed."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if python_path:
            environment["PYTHONPATH"] = python_path
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=False,
            timeout=TIMEOUT,
        )  # fmt: skip
        if done.returncode:
            output = (done.stdout + done.stderr)[-2000:]
            raise BenchFailed(f"{self.path}: {shlex.join(command)} failed: {output}")
        return done.stdout


def compare(
    name: str, run: Callable[[Checkout], dict[str, float]], other: Checkout, pairs: int
) -> None:
    """Run both checkouts in pairs and print one line per scene."""
    this = Checkout(HERE)
    samples: dict[str, list[tuple[float, float]]] = {}
    for number in range(pairs):
        order = (other, this) if number % 2 else (this, other)
        found = {checkout: run(checkout) for checkout in order}
        for scene, value in found[this].items():
            if scene in found[other]:
                samples.setdefault(scene, []).append((value, found[other][scene]))
        print(f"\r{name}: pair {number + 1} of {pairs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for scene, values in samples.items():
        print(summarize(f"{name}, {scene}" if scene else name, values), flush=True)


def summarize(name: str, values: list[tuple[float, float]]) -> str:
    """Return a line with the median ratio, its spread, and the medians of both in µs."""
    ratios = [ours / theirs for ours, theirs in values]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    ours, theirs = median([value for value, _ in values]), median([value for _, value in values])
    return (
        f"{name:48} {median(ratios):6.3f}x  quartiles {low:.3f} to {high:.3f}, "
        f"range {min(ratios):.3f} to {max(ratios):.3f}  ({ours:.2f} to {theirs:.2f} µs)"
    )


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument(
        "--pairs", type=int, default=FEWEST_PAIRS,
        help=f"pairs of runs (default {FEWEST_PAIRS}; fewer give no reliable ratio)",
    )  # fmt: skip
    parser.add_argument(
        "--logic",
        default="",
        metavar="ARGUMENTS",
        help='arguments for bench.logic: --logic="--log --spans 0.01"',
    )
    parser.add_argument(
        "--proxy", default="", metavar="SCENES",
        help="also run the scenes of bench.proxy with this in their name (needs nginx and wrk)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="load per run of bench.proxy (default 2)"
    )
    parser.add_argument(
        "--form", choices=("both", "plain", "compiled"), default="both", help="what to compare"
    )
    options = parser.parse_args()
    other = Checkout(options.other.resolve())
    forms = [name for name in ("plain", "compiled") if options.form in ("both", name)]
    for checkout in (Checkout(HERE), other):
        if "compiled" in forms and not checkout.compiled.exists():
            print(f"compiled form left out: run `make compile` in {checkout.path}")
            forms.remove("compiled")
    try:
        for form in forms:
            compiled = form == "compiled"
            logic = partial(Checkout.logic, compiled=compiled, arguments=shlex.split(options.logic))
            compare(f"logic, {form}", logic, other, options.pairs)
            if options.proxy:
                proxy = partial(
                    Checkout.proxy,
                    compiled=compiled,
                    scenes=options.proxy,
                    seconds=options.seconds,
                )
                compare(form, proxy, other, options.pairs)
    except (BenchFailed, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"pairs: {error}") from error


if __name__ == "__main__":
    main()
