"""CPU time and size of a scrape of `/metrics` in each format, with 200 services of 10 replicas.

Each histogram has 200 occupied buckets, as after a day of mixed traffic, and each service is
called by five others.

    python -m bench.scrape
"""

import asyncio
import statistics
import time
from typing import Final

from meshd.telemetry.exposition.formats import OPENMETRICS, TEXT, protobuf
from tests.fakes.large_mesh import REPLICAS, SERVICES, large_mesh

ROUNDS: Final = 15


def main() -> None:
    mesh = large_mesh(1_000_002.0)
    print(f"{SERVICES} services with {REPLICAS} replicas each")
    for each in (TEXT, OPENMETRICS, protobuf()):
        accept = each.content_type.replace("; ", ";")
        times = []
        for _ in range(ROUNDS):
            begin = time.process_time()
            body = asyncio.run(mesh.exposition(accept)).body
            times.append(time.process_time() - begin)
        name = accept.partition(";")[0]
        print(f"{name:36} {statistics.median(times) * 1e3:6.0f} ms {len(body) / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
