"""A real Prometheus that takes native histograms and exemplars scrapes a real `/metrics`."""

import time
from pathlib import Path

import pytest

from meshd.api.dto import Exposition
from meshd.api.server import serve
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from tests.fakes import traffic
from tests.fakes.control import FakeControl
from tests.support.prometheus import running_prometheus
from tests.support.waiting import wait_until

pytestmark = pytest.mark.prometheus


class CountingControl(FakeControl):
    """A fake control with traffic; `formats` has the content type of each scrape."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: list[str] = []
        self._mesh = traffic.metrics(Ingest(), time.time(), live=True, counters=EventCounters())

    async def metrics(self, accept: str) -> Exposition:
        found = await self._mesh.exposition(accept)
        self.formats.append(found.content_type)
        return found


CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: meshd
    static_configs: [{{targets: ["{address}"]}}]
"""


async def test_quantiles_come_from_native_buckets(tmp_path: Path) -> None:
    control = CountingControl()
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0") as serving:
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(address=serving.metrics_address))
        async with running_prometheus(config, "native-histograms", "exemplar-storage") as server:
            own = 'meshd_request_duration_seconds{service="shop/orders"}'
            (count,) = await server.wait_for(f"histogram_count({own})")
            assert float(count["value"][1]) == 20
            # The slowest of five latencies is 1.2 s: the classic buckets end at 1 and 2.5 s.
            (worst,) = await server.wait_for(f"histogram_quantile(1, {own})")
            assert 1.2 <= float(worst["value"][1]) <= 1.2 * 2 ** (2 / 8)
            # All other families arrive in the same format.
            (ready,) = await server.wait_for('meshd_replicas{service="shop/orders",state="ready"}')
            assert float(ready["value"][1]) == 1
            assert await server.wait_for("process_resident_memory_bytes")
            assert await server.wait_for("meshd_events_total")
    assert all("protobuf" in each for each in control.formats)


async def test_exemplars_lead_from_a_bucket_to_a_trace(tmp_path: Path) -> None:
    control = CountingControl()
    async with serve(control, tmp_path / "admin.sock", "127.0.0.1:0") as serving:
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(address=serving.metrics_address))
        async with running_prometheus(config, "exemplar-storage") as server:
            name = "meshd_request_duration_seconds_bucket"

            async def traces() -> set[str]:
                found = await server.get(
                    "query_exemplars",
                    query=f'{name}{{service="shop/orders"}}',
                    start=str(time.time() - 600),
                    end=str(time.time() + 600),
                )
                return {each["labels"]["trace_id"] for one in found for each in one["exemplars"]}

            await wait_until(traces, 20.0, "an exemplar", 0.1)
            assert await traces() == {traffic.TRACE}
            (bucket,) = await server.wait_for(f'{name}{{service="shop/orders",le="1.0"}}')
            assert float(bucket["value"][1]) == 16
    assert all("openmetrics" in each for each in control.formats)
