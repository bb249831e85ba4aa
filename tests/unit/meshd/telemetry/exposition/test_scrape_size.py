"""A scrape of 200 services with 10 replicas each: under 5 MB, and how long it takes."""

import asyncio
import time

import pytest

from tests.fakes.large_mesh import SERVICES, large_mesh
from tests.unit.meshd.telemetry.exposition.test_formats import NATIVE_SCRAPE, PLAIN_SCRAPE

NOW = 1_000_002.0
SIZE = 5_000_000
SECONDS = 0.2
TOLERANCE = 5.0
"""Factor on the time: a busy machine fails nothing, a scrape that is slow by design does."""


@pytest.mark.parametrize(
    "accept", ["", PLAIN_SCRAPE, NATIVE_SCRAPE], ids=["text", "om", "protobuf"]
)
def test_a_scrape_of_a_large_mesh_is_small(accept: str) -> None:
    mesh = large_mesh(NOW)
    asyncio.run(mesh.exposition(accept))
    begin = time.process_time()
    body = asyncio.run(mesh.exposition(accept)).body
    took = time.process_time() - begin
    print(f"{len(body) / 1e6:.2f} MB in {took * 1e3:.0f} ms of CPU time")
    assert body.count(b"shop/service-") > 50 * SERVICES
    assert len(body) < SIZE
    assert took < TOLERANCE * SECONDS
