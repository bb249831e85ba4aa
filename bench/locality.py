"""Local endpoints first, in simulation: does it keep requests on their node without hot spots?

Model: as in `bench.balancing`, with one proxy on each node, which knows its own requests only. The
replicas are spread over the nodes. `uneven` is the share of all requests that arrive at the first
node; the others share the rest. A request to another node takes a round trip longer.

    python -m bench.locality [--seconds 60] [--seeds 3]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.balancing import WARM_UP, Run, Scene
from proxy.policy.balance import make_picker
from proxy.wire.snapshot import Algorithm, Balance, Endpoint


@dataclass(frozen=True)
class Nodes(Scene):
    """A scene on several nodes.

    - `nodes`: their number; replica i is on node i modulo this number
    - `uneven`: share of the requests that arrive at the first node; 0: as many as at the others
    - `round_trip`: seconds between two nodes
    - `prefer`: whether a proxy prefers its own node
    """

    slowness: tuple[float, ...] = (1.0,) * 20
    nodes: int = 4
    uneven: float = 0.0
    round_trip: float = 0.0005
    prefer: bool = True


@dataclass
class Locality:
    """What came out.

    - `local`: share of the requests that stayed on their node
    - `p50`, `p99`: quantiles of the latency of all requests, in seconds
    - `first_p99`: that of the requests that arrived at the first node
    - `missed`: percentage of requests that were late or refused
    """

    local: float
    p50: float
    p99: float
    first_p99: float
    missed: float


class NodesRun(Run):
    """A simulation in which worker i is the proxy of node i."""

    def __init__(self, algorithm: Algorithm, scene: Nodes, seed: int) -> None:
        self._nodes = scene
        workers = Nodes(**{**vars(scene), "workers": scene.nodes})
        super().__init__(algorithm, workers, seed)
        self.refreshed = [float("inf")] * scene.nodes
        members = [
            Endpoint(view.id, "", 0, node=f"n{index % scene.nodes}")
            for index, view in enumerate(self.views[0])
        ]
        for views in self.views:
            for view, member in zip(views, members, strict=True):
                view.node = member.node
        self.pickers = [
            make_picker(Balance(algorithm), members, f"n{number}" if scene.prefer else "")
            for number in range(scene.nodes)
        ]
        self._local = self._sent = 0
        self._latencies: list[tuple[int, float]] = []

    def choose_worker(self) -> int:
        if not self._nodes.uneven:
            return int(self.random.random() * self._nodes.nodes)
        if self.random.random() < self._nodes.uneven:
            return 0
        return 1 + int(self.random.random() * (self._nodes.nodes - 1))

    def delay(self, worker: int, chosen: int) -> float:
        return 0.0 if chosen % self._nodes.nodes == worker else self._nodes.round_trip

    def note(self, worker: int, chosen: int, arrival: float, latency: float) -> None:
        if arrival >= WARM_UP:
            self._sent += 1
            self._local += chosen % self._nodes.nodes == worker
            self._latencies.append((worker, latency))

    def locality(self) -> Locality:
        outcome = self.run()
        first = sorted(latency for worker, latency in self._latencies if worker == 0)
        return Locality(
            self._local / max(1, self._sent),
            outcome.quantile(0.5),
            outcome.quantile(0.99),
            first[int(0.99 * len(first))] if first else 0.0,
            outcome.miss_percent,
        )


def mean_locality(algorithm: Algorithm, scene: Nodes, seeds: Sequence[int]) -> Locality:
    """Return the means over several seeds."""
    found = [NodesRun(algorithm, scene, seed).locality() for seed in seeds]
    return Locality(*(fmean(getattr(each, name) for each in found) for name in vars(found[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    print(
        "4 nodes, 20 replicas: requests that stay local, p50/p99 in ms, and p99 of the first node"
    )
    for uneven in (0.0, 0.4, 0.8):
        for load in (0.5, 0.75, 0.9):
            for algorithm in ("hot-cold", "least-request"):
                cells = []
                for prefer in (False, True):
                    scene = Nodes(load=load, seconds=options.seconds, uneven=uneven, prefer=prefer)
                    one = mean_locality(algorithm, scene, seeds)
                    cells.append(
                        f"{one.local:5.0%} {one.p50 * 1e3:4.0f}/{one.p99 * 1e3:4.0f} "
                        f"{one.first_p99 * 1e3:4.0f} {one.missed:5.2f}%"
                    )
                where = f"{uneven:.0%} at the first" if uneven else "even"
                print(
                    f"{where:16} load {load} {algorithm:14} " + "   preferred: ".join(cells),
                    flush=True,
                )


if __name__ == "__main__":
    main()
