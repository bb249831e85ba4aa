"""`make soak`: ROLLOUTS=100 rolling updates in a row under load, on RUNTIME=process or docker.

    python -m tests.soak.run [--rollouts 100] [--runtime process] [--rate 300]

Prints a line a rollout. Exit codes: 0 when every request of every client was served, 1 when one
was not, or a rollout failed.
"""

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.soak.load import Count, Failure, Mixed
from tests.support.mesh import TestMesh, service_text

DEPLOY: Final = "{replicas: 2, update_config: {parallelism: 1, monitor: 1s}}"
AROUND: Final = 3.0


@dataclass
class Soaked:
    """The result. `problems` are rollouts that failed."""

    served: int = 0
    streams: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failures and not self.problems

    def add(self, count: Count) -> None:
        """Add the requests of one rollout."""
        self.streams += count.served["stream"] + count.served["download"]
        self.served += sum(count.served.values())
        self.failures += count.failures


def compose(mesh: TestMesh, image: str, version: int, gate: bool) -> str:
    """Return the application at one version; with `gate`, each version is analyzed as a canary."""
    policy = "{routes: [/]}" if gate else "{routes: [/], rollout: {gate: false}}"
    more = {"environment": f"{{VERSION: '{version}'}}", "deploy": DEPLOY, "policy": policy}
    text = service_text("web", mesh.runtime, image, **more)
    return f"name: {mesh.environment['PROJECT']}\nservices:\n{text}"


async def soak(
    mesh: TestMesh,
    image: str,
    rollouts: int,
    rate: float,
    tell: Callable[[str], None],
    gate: bool = True,
) -> Soaked:
    """Bring it up, and roll it out `rollouts` times under load."""
    result = Soaked()
    up = await mesh.up(compose(mesh, image, 0, gate))
    if up.code:
        result.problems.append(up.out + up.err)
        return result
    path = mesh.folder / "compose.yml"
    tell(f"{'rollout':>7}{'s':>7}{'served':>8}{'streams':>9}{'p99 ms':>8}{'failed':>8}")
    async with Mixed(mesh.address, rate) as load:
        await asyncio.sleep(1.0)
        for number in range(1, rollouts + 1):
            path.write_text(compose(mesh, image, number, gate))
            began = time.monotonic()
            deploy = await mesh.run("deploy", "-f", str(path))
            took = time.monotonic() - began
            count = load.since()
            result.add(count)
            result.seconds.append(took)
            streams = count.served["stream"] + count.served["download"]
            tell(
                f"{number:7}{took:7.1f}{count.served.total():8}{streams:9}"
                f"{count.quantile(0.99) * 1e3:8.0f}{len(count.failures):8}"
            )
            if deploy.code:
                result.problems.append(f"rollout {number}: {deploy.out}{deploy.err}")
                break
    last = load.since()
    result.add(last)
    if not result.problems and set(last.versions) - {str(rollouts), str(rollouts - 1)}:
        result.problems.append(f"after the last rollout these answered: {dict(last.versions)}")
    if result.failures:
        for line in await evidence(mesh, result.failures):
            tell(line)
    return result


async def evidence(mesh: TestMesh, failures: list[Failure]) -> list[str]:
    """Return the failures, the first one in full, with the events of the mesh around it."""
    lines = [f"{each.at:.3f} {each.kind}: {each.text}" for each in failures[:20]]
    first = failures[0].at
    lines.append("events of the mesh around the first:")
    for event in await mesh.events():
        if abs(event["at"] - first) < AROUND:
            words = (event["kind"], event["replica"], event["text"])
            lines.append(f"{event['at']:.3f} {' '.join(words)}")
    return lines


async def main(options: argparse.Namespace) -> int:
    """Run one soak on its own mesh."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    project = f"soak-{uuid.uuid4().hex[:6]}"
    mesh = TestMesh(folder, options.runtime, environment={"PROJECT": project})
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                result = await soak(
                    mesh, options.image, options.rollouts, options.rate, print, options.gate
                )
            finally:
                await mesh.end()
    except KeyboardInterrupt:
        return 130
    for problem in result.problems:
        print(problem)
    mean = sum(result.seconds) / max(1, len(result.seconds))
    print(
        f"{len(result.seconds)} rollouts in {mean:.1f} s each on {options.runtime}: "
        f"{result.served} served, {result.streams} of them streams; {len(result.failures)} failed"
    )
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="rolling updates in a row under load")
    parser.add_argument("--rollouts", type=int, default=100)
    parser.add_argument("--runtime", choices=("process", "docker"), default="process")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--no-gate", dest="gate", action="store_false", help="let all on at once")
    parser.add_argument("--image", default="meshd-base:bookworm", help="with python3, for docker")
    sys.exit(asyncio.run(main(parser.parse_args())))
