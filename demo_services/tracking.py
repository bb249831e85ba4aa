"""tracking: the position of the courier, as a stream of server-sent events.

The positions come from `couriers`, by gRPC through the mesh. `GET /tracking/ORDER?seconds=N` →
text/event-stream, one position every half second; `GET /tracking/ORDER/position` → the current one.
"""

import json
from collections.abc import AsyncIterator

import grpc
from aiohttp import web

from demo_services.couriers import MAX_SECONDS, Couriers
from demo_services.replica import Replica, Work, mesh_url, serve

COURIERS = web.AppKey("couriers", Couriers)


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""

    async def now(request: web.Request) -> web.Response:
        async with replica.busy():
            try:
                where = await request.app[COURIERS].locate(request.match_info["order"])
            except grpc.RpcError as error:
                raise web.HTTPBadGateway(text=describe(error)) from error
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
        try:
            async for where in request.app[COURIERS].follow(request.match_info["order"], seconds):
                event = json.dumps({**where, "version": replica.version})
                await response.write(f"event: position\ndata: {event}\n\n".encode())
        except grpc.RpcError as error:
            # Without the event `end` the client knows that the stream is not complete.
            await response.write(f"event: error\ndata: {describe(error)}\n\n".encode())
        else:
            await response.write(b"event: end\ndata: {}\n\n")
        await response.write_eof()
        return response

    async def couriers(app: web.Application) -> AsyncIterator[None]:
        app[COURIERS] = Couriers(mesh_url("couriers"))
        yield
        await app[COURIERS].close()

    app = web.Application()
    app.cleanup_ctx.append(couriers)
    app.router.add_get("/tracking/{order}", stream)
    app.router.add_get("/tracking/{order}/position", now)
    return app


def describe(error: grpc.RpcError) -> str:
    """Return what a failed call of `couriers` said, as one line."""
    return f"couriers answered {error.code().name}: {' '.join(error.details().split())}"


if __name__ == "__main__":
    serve("tracking", Work(mean=0.02, concurrency=8), build)
