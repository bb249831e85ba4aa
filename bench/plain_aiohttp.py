"""A minimal reverse proxy with aiohttp, for comparison.

python -m bench.plain_aiohttp PORT ORIGIN_PORT WORKERS
"""

import os
import signal
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def main() -> None:
    port, origin, workers = map(int, sys.argv[1:4])
    children: list[int] = []
    for _ in range(workers - 1):
        pid = os.fork()
        if not pid:
            children.clear()
            break
        children.append(pid)

    def end(*_: object) -> None:
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP
        }
        url = f"http://127.0.0.1:{origin}{request.raw_path}"
        data = request.content if request.can_read_body else None
        session: ClientSession = request.app["session"]
        async with session.request(
            request.method, url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def start(app: web.Application) -> None:
        connector = TCPConnector(limit=0)
        timeout = ClientTimeout(total=60)
        app["session"] = ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def stop(app: web.Application) -> None:
        end()
        await app["session"].close()

    app = web.Application(client_max_size=1 << 30)
    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    app.router.add_route("*", "/{path:.*}", forward)
    import uvloop

    uvloop.install()
    web.run_app(
        app, host="127.0.0.1", port=port, reuse_port=True, print=None, access_log=None, backlog=4096
    )


if __name__ == "__main__":
    main()
