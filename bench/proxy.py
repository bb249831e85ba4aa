"""Cost of a request, in the same scenes for this proxy, nginx, HAProxy, Envoy, Traefik, Caddy and a
plain aiohttp proxy.

Each is pinned to one core; they take turns, several times. The measure is the CPU time that the
kernel counted for the proxy's processes, divided by the requests answered. Unlike throughput, it
hardly depends on other load of the machine; still, compare only ratios within one run. Origin and
client share the other core.

    python -m bench.proxy [--rounds 3] [--seconds 3] [--only nginx,ours] [--scenes unique]

With `--neighbour` a process that uses the caches by itself runs on each core during the load.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from bench import tail
from bench.contenders import CONTENDERS, LOGS, Setting, installed, origin
from bench.idle import per_connection
from bench.kernel import cpu_seconds
from bench.neighbour import neighbours
from bench.running import NotServing, check, running
from bench.scenes import SCENES, ClientFailed, Load, Scene, play

REFERENCE: Final = ("nginx", "haproxy")
"""Ratios are to the better of these."""
BAR: Final = 40
"""Characters of the longest bar."""
FEWEST: Final = 5
"""Requests per sample; a sample with fewer means that something is wrong."""


@dataclass
class Results:
    """Samples by (scene, proxy)."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, scene: str, name: str, value: float) -> None:
        self.samples.setdefault((scene, name), []).append(value)

    def value(self, scene: str, name: str) -> float | None:
        """Return the median; None without samples."""
        found = self.samples.get((scene, name))
        return median(found) if found else None

    def table(self, scene: str, names: Sequence[str], unit: str) -> str:
        """Return medians, ratios to the better of nginx and HAProxy, and bars."""
        values = {name: self.value(scene, name) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            return f"\n{scene}: no samples"
        base = min([known[n] for n in REFERENCE if n in known] or list(known.values()))
        most = max(known.values())
        better = next((n for n in REFERENCE if known.get(n) == base), "")
        lines = [f"\n{scene} ({unit}; ratio to the better of nginx and HAProxy)"]
        for name, value in sorted(known.items(), key=lambda item: item[1]):
            spread = self.samples[scene, name]
            around = f"{min(spread):.1f}..{max(spread):.1f}"
            bar = "█" * max(1, round(BAR * value / most)) if most > 0 else ""
            ratio = f"{self.ratio(scene, name, better):6.2f}x" if better else "      -"
            lines.append(f"  {name:13}{value:10.1f}  {around:>17} {ratio}  {bar}")
        return "\n".join(lines)

    def partner(self, scene: Scene, names: Sequence[str]) -> str:
        """Return each proxy's cost in a scene as a ratio to the scene measured in turn with it."""
        assert scene.partner is not None
        lines = [f"\n{scene.name} (ratio to its own: {scene.partner.name})"]
        for name in names:
            ours = self.samples.get((scene.name, name))
            theirs = self.samples.get((scene.partner.name, name))
            if ours and theirs:
                lines.append(f"  {name:13}{quotient(ours, theirs):10.2f}x")
        return "\n".join(lines)

    def ratio(self, scene: str, name: str, to: str) -> float:
        """Return the cost of one proxy relative to another in a scene."""
        return quotient(self.samples[scene, name], self.samples[scene, to])


def quotient(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios within each round.

    Other load was nearly the same for both within a round. Return the ratio of the medians if a
    round lacks one of them.
    """
    if len(ours) != len(theirs) or not all(theirs):
        return median(ours) / median(theirs) if median(theirs) else float("inf")
    return median([one / other for one, other in zip(ours, theirs, strict=True)])


@dataclass
class Bench:
    """One benchmark run.

    - `home`: directory for files
    - `base_port`: port of the origin; proxies use the next ones
    - `seconds`: load per sample
    - `names`: the proxies
    - `neighbour`: whether a neighbour runs on each core during the load
    - `problems`: messages to print at the end
    - `rates`: highest rate of each proxy, in requests per second
    """

    home: Path
    base_port: int
    seconds: float
    names: tuple[str, ...]
    neighbour: bool = False
    results: Results = field(default_factory=Results)
    problems: list[str] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def cores(self) -> tuple[int, int]:
        """Return (the proxy's core, the core of origin and client)."""
        cores = sorted(os.sched_getaffinity(0))
        return cores[0], cores[-1]

    def serve(
        self, name: str, scene: Scene, act: Callable[[int, int], None], checked: bool = False
    ) -> None:
        """Start a proxy for a scene, check its answers, and call `act(pid, port)`."""
        with tempfile.TemporaryDirectory(dir=self.home) as home:
            os.chmod(home, 0o755)
            port = self.base_port + 1 + self.names.index(name)
            setting = Setting(Path(home), port, self.base_port, scene.workers, scene.log)
            try:
                with running(CONTENDERS[name](setting), port, self.cores[:1], Path(home)) as pid:
                    if not checked:
                        check(port, self.base_port)
                    act(pid, port)
            except (NotServing, ClientFailed, OSError) as error:
                self.problems.append(f"{name}, {scene.name}: {error}")

    def cost(self, name: str, scene: Scene) -> None:
        """Take one sample of the CPU time per request."""

        def act(pid: int, port: int) -> None:
            with neighbours(self.cores if self.neighbour else ()):
                self._load(scene, port, 1)
                before = cpu_seconds(pid)
                load = self._load(scene, port, self.seconds * scene.longer)
                spent = cpu_seconds(pid) - before
            if load.requests < FEWEST:
                raise ClientFailed(f"only {load.requests} requests were answered")
            if load.errors:
                self.problems.append(f"{name}, {scene.name}: {load.errors} errors")
            self.results.add(scene.name, name, spent / max(1, load.requests) * 1e6)
            self.rates[name] = max(self.rates.get(name, 0.0), load.requests / load.seconds)

        self.serve(name, scene, act)

    def _load(self, scene: Scene, port: int, seconds: float) -> Load:
        return play(scene, port, seconds, self.home, self.cores[1])

    def memory(self, name: str, connections: int) -> None:
        """Take one sample of the memory per idle connection."""

        def act(pid: int, port: int) -> None:
            _, size = per_connection(pid, port, connections)
            self.results.add("idle connection", name, size / 1024)

        self.serve(name, Scene("idle connections"), act)

    def tail(self, name: str) -> None:
        """Take one sample of the p99 at half of the highest rate seen."""

        def act(_: int, port: int) -> None:
            rate = self.rates[name] / 2
            p99 = tail.p99(port, rate, max(2, int(self.seconds)), self.home, self.cores[1])
            self.results.add("p99 at half of saturation", name, p99 * 1e3)

        if self.rates.get(name):
            self.serve(name, Scene("p99 at half of saturation"), act)


def main() -> None:
    options = arguments().parse_args()
    wanted = options.only.split(",") if options.only else list(CONTENDERS)
    names = tuple(name for name in CONTENDERS if name in wanted and installed(name))
    missing = [name for name in wanted if name not in names]
    scenes = [scene for scene in SCENES if options.scenes in scene.name]
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        os.chmod(home, 0o755)
        bench = Bench(Path(home), options.port, options.seconds, names, options.neighbour)
        origin_home = Path(home) / "origin"
        origin_home.mkdir()
        command = origin(origin_home, options.port)
        with running(command, options.port, bench.cores[1:], origin_home):
            measure(bench, scenes, options)
    if missing:
        print(f"\nnot installed: {', '.join(missing)}")
    for problem in bench.problems:
        print(f"problem: {problem}")
    if options.json:
        found = {f"{scene} | {name}": v for (scene, name), v in bench.results.samples.items()}
        Path(options.json).write_text(json.dumps(found, indent=1))
    sys.exit(1 if bench.problems else 0)


def measure(bench: Bench, scenes: Sequence[Scene], options: argparse.Namespace) -> None:
    """Measure all scenes; print a table after each."""
    for scene in scenes:
        names = [name for name in bench.names if not scene.log or name in LOGS]
        for _ in range(options.rounds):
            for name in names:
                bench.cost(name, scene)
                if scene.partner is not None:
                    bench.cost(name, scene.partner)
        print(bench.results.table(scene.name, names, "CPU µs per request"), flush=True)
        if scene.partner is not None:
            print(bench.results.partner(scene, names), flush=True)
    if not options.scenes and tail.available():
        for _ in range(options.rounds):
            for name in bench.names:
                bench.tail(name)
        print(bench.results.table("p99 at half of saturation", bench.names, "ms"), flush=True)
    if options.idle:
        for name in bench.names:
            bench.memory(name, options.idle)
        print(bench.results.table("idle connection", bench.names, "KiB each"), flush=True)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="CPU time per request of several proxies.")
    parser.add_argument(
        "--rounds", type=int, default=3, help="samples per scene and proxy (default 3)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="load per sample (default 3)")
    parser.add_argument("--only", default="", help="proxies, separated by commas")
    parser.add_argument("--scenes", default="", help="only scenes with this in their name")
    parser.add_argument(
        "--idle", type=int, default=10_000, help="idle connections; 0 skips the test"
    )
    parser.add_argument(
        "--neighbour", action="store_true", help="with other work that uses the caches"
    )
    parser.add_argument("--port", type=int, default=21_000, help="first of ten ports")
    parser.add_argument("--json", default="", metavar="FILE", help="write all samples to this file")
    return parser


if __name__ == "__main__":
    main()
