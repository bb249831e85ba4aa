"""Cost of one pick, for each balancing rule and several numbers of replicas.

python -m bench.pick
"""

import argparse
from random import Random
from time import perf_counter, process_time

from bench.balancing import ALGORITHMS, View
from proxy.policy.balance import make_picker
from proxy.policy.hashing import hash_key
from proxy.policy.latency import LatencyAtLoad
from proxy.wire.snapshot import Algorithm, Balance, Endpoint


def cost(algorithm: Algorithm, replicas: int, picks: int = 20_000, rounds: int = 7) -> float:
    """Return the microseconds of a pick: the best of several rounds.

    Replicas are busy (two to six requests in flight each) and differ in latency. A picked replica
    keeps its request for a while.
    """
    random = Random(1)
    views = tuple(View(f"r{i}", LatencyAtLoad()) for i in range(replicas))
    for view in views:
        view.in_flight = 2 + int(random.random() * 5)
        quick = 0.005 * (1.0 + random.random())
        for load in range(16):
            view.estimate.observe(quick, 1.0, load)
    members = [Endpoint(id=view.id, host="", port=0) for view in views]
    picker = make_picker(Balance(algorithm=algorithm), members)
    pick, dice, key = picker.pick, random.random, hash_key(b"client")
    pick(views, key, dice, 0.0)
    best = float("inf")
    now = 0.0
    for _ in range(rounds):
        oldest = [0] * (2 * replicas)
        begin = process_time()
        for turn in range(picks):
            now += 0.0002
            chosen = pick(views, key, dice, now)
            views[chosen].in_flight += 1
            place = turn % (2 * replicas)
            views[oldest[place]].in_flight -= 1
            oldest[place] = chosen
        spent = process_time() - begin
        for place in oldest:
            views[place].in_flight -= 1
        begin = process_time()
        for turn in range(picks):
            now += 0.0002
            views[0].in_flight += 1
            place = turn % (2 * replicas)
            views[oldest[place]].in_flight -= 1
            oldest[place] = 0
        best = min(best, spent - (process_time() - begin))
        for view in views:
            view.in_flight = 2 + int(random.random() * 5)
    return best / picks * 1e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    sizes = (2, 10, 100, 1000)
    begin = perf_counter()
    print("microseconds per pick")
    print(f"{'rule':14}" + "".join(f"{f'{size} replicas':>15}" for size in sizes))
    for algorithm in ALGORITHMS:
        cells = "".join(f"{cost(algorithm, size):15.2f}" for size in sizes)
        print(f"{algorithm:14}{cells}", flush=True)
    print(f"({perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
