"""tracking: where the courier is, as a server-sent event stream.

`GET /tracking/ORDER?seconds=N` → text/event-stream, a position each half second;
`GET /tracking/ORDER/position` → the position now.
"""

import asyncio
import json
import math
import time
import zlib

from aiohttp import web

from demo_services.replica import Replica, Work, serve

STEP = 0.5
LONGEST = 120.0


def position(order: str, now: float) -> dict[str, float]:
    """The courier of `order` at `now` (Unix time): a ride around a point in the city that
    depends on the order alone, so that every replica tells the same."""
    seed = zlib.crc32(order.encode())
    turn = (now / 60 + seed % 360) * math.tau / 6
    return {
        "lat": round(52.5 + (seed % 97) / 1000 + 0.004 * math.sin(turn), 6),
        "lon": round(13.4 + (seed % 89) / 1000 + 0.006 * math.cos(turn), 6),
    }


def build(replica: Replica) -> web.Application:
    """The application of one replica."""

    async def now(request: web.Request) -> web.Response:
        async with replica.busy():
            where = position(request.match_info["order"], time.time())
            return web.json_response({**where, "version": replica.version})

    async def stream(request: web.Request) -> web.StreamResponse:
        try:
            seconds = min(float(request.query.get("seconds", "5")), LONGEST)
        except ValueError as error:
            raise web.HTTPBadRequest(text="seconds: a number is expected") from error
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
            await asyncio.sleep(STEP)
        await response.write(b"event: end\ndata: {}\n\n")
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/tracking/{order}", stream)
    app.router.add_get("/tracking/{order}/position", now)
    return app


if __name__ == "__main__":
    serve("tracking", Work(mean=0.02, concurrency=8), build)
