"""tracking: the position of the courier, as a stream of server-sent events.

`GET /tracking/ORDER?seconds=N` → text/event-stream, one position every half second;
`GET /tracking/ORDER/position` → the current position.
"""

import asyncio
import json
import math
import time
import zlib

from aiohttp import web

from demo_services.replica import Replica, Work, serve

INTERVAL = 0.5
"""Seconds between two positions."""
MAX_SECONDS = 120.0
"""Longest stream, so that a replica can always drain."""


def position(order: str, now: float) -> dict[str, float]:
    """Return the position of the courier of `order` at `now` (Unix time): on a circle around a
    point in the city. It depends only on the order, so that every replica returns the same."""
    seed = zlib.crc32(order.encode())
    turn = (now / 60 + seed % 360) * math.tau / 6
    return {
        "lat": round(52.5 + (seed % 97) / 1000 + 0.004 * math.sin(turn), 6),
        "lon": round(13.4 + (seed % 89) / 1000 + 0.006 * math.cos(turn), 6),
    }


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""

    async def now(request: web.Request) -> web.Response:
        async with replica.busy():
            where = position(request.match_info["order"], time.time())
            return web.json_response({**where, "version": replica.version})

    async def stream(request: web.Request) -> web.StreamResponse:
        try:
            seconds = min(float(request.query.get("seconds", "5")), MAX_SECONDS)
        except ValueError as error:
            raise web.HTTPBadRequest(text="seconds: expected a number") from error
        async with replica.busy():
            pass
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        order, end = request.match_info["order"], time.monotonic() + seconds
        while time.monotonic() < end:
            event = {**position(order, time.time()), "version": replica.version}
            await response.write(f"event: position\ndata: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(INTERVAL)
        await response.write(b"event: end\ndata: {}\n\n")
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/tracking/{order}", stream)
    app.router.add_get("/tracking/{order}/position", now)
    return app


if __name__ == "__main__":
    serve("tracking", Work(mean=0.02, concurrency=8), build)
