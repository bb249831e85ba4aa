"""Prometheus queries read answers from outside: bounded in size, whatever the server sends."""

import asyncio
import time

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from meshd.scaling import prometheus_queries
from meshd.scaling.prometheus_queries import MAX_ANSWER, PrometheusQueries
from meshd.spec.model import PrometheusQuery
from tests.support.waiting import wait_until

GOOD = b'{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"3"]}]}}'


async def test_an_endless_answer_is_cut_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_queries, "INTERVAL", 0.05)
    sent = 0
    endless = True

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if not endless:
            return web.Response(body=GOOD)
        response = web.StreamResponse()
        await response.prepare(request)
        while endless:
            await response.write(b"1" * 65536)
            sent += 65536
        return response

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    query = PrometheusQuery(url=f"http://{host}:{port}", query="q", per_replica=1.0)
    queries = PrometheusQueries(time.monotonic)
    queries.set_queries([query])
    with capture_logs() as logs:
        task = asyncio.create_task(queries.run())
        try:
            await wait_until(lambda: logs, what="a warning")
            assert logs[0]["reason"] == "the answer is larger than 1 MiB"
            assert queries.value(query) is None
            assert sent < 20 * MAX_ANSWER
            endless = False
            await wait_until(lambda: queries.value(query) == 3.0, what="a value")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await runner.cleanup()
