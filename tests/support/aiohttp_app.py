"""The application of `real_servers` for aiohttp, with files and a page for a browser."""

import asyncio
import gzip
import hashlib
import json
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

MIB = bytes(range(256)) * 4096
PAGE = """<!doctype html><title>t</title><script type="module">
const found = {};
try {
  const body = new Uint8Array(300000).fill(65);
  found.post = (await (await fetch("/echo?a=b", {method: "POST", body})).json()).size;
  found.many = (await Promise.all([...Array(40).keys()].map(
      async n => (await (await fetch("/echo?" + n)).json()).target))).length;
  found.gzip = (await (await fetch("/gzip")).arrayBuffer()).byteLength;
  found.events = await new Promise(done => {
    const events = new EventSource("/events"), seen = [];
    events.onmessage = e => {
      seen.push(e.data); if (e.data == "end") { events.close(); done(seen); } };
  });
  found.socket = await new Promise((done, no) => {
    const ws = new WebSocket(location.origin.replace("http", "ws") + "/ws");
    ws.onopen = () => ws.send("hello"); ws.onerror = () => no("socket");
    ws.onmessage = e => { done(e.data); ws.close(); };
  });
  const loaded = performance.getEntriesByType("resource").map(each => each.nextHopProtocol);
  found.protocols = [...new Set(loaded)];
} catch (error) { found.error = String(error); }
await fetch("/report", {method: "PUT", body: JSON.stringify(found)});
</script>"""
REPORTS: list[str] = []


async def echo(request: web.Request) -> web.Response:
    digest, size = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        digest.update(piece)
        size += len(piece)
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "size": size,
            "sha256": digest.hexdigest(),
            "length": request.headers.get("Content-Length"),
            "encoding": request.headers.get("Transfer-Encoding"),
        }
    )


async def large(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(int(request.query["mib"])):
        await answer.write(MIB)
    return answer


async def events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for number in range(5):
        await answer.write(b"data: %d\n\n" % number)
        await asyncio.sleep(0.2)
    await answer.write(b"data: end\n\n")
    return answer


async def packed(request: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(MIB, mtime=0), headers={"Content-Encoding": "gzip"})


async def etag(request: web.Request) -> web.Response:
    known = request.headers.get("If-None-Match") == '"v1"'
    text = None if known else "version one"
    return web.Response(status=304 if known else 200, text=text, headers={"ETag": '"v1"'})


async def socket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=1 << 24)
    await ws.prepare(request)
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def report(request: web.Request) -> web.Response:
    """Keep the report of a page; with GET, return the last one and forget it."""
    if request.method == "PUT":
        REPORTS.append(await request.text())
        return web.Response()
    return web.Response(text=REPORTS.pop() if REPORTS else json.dumps({}))


def main() -> None:
    port, files = int(sys.argv[1]), Path(sys.argv[2])
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/large", large)
    app.router.add_get("/events", events)
    app.router.add_get("/gzip", packed)
    app.router.add_get("/etag", etag)
    app.router.add_get("/ws", socket)
    app.router.add_get("/page", page)
    app.router.add_route("*", "/report", report)
    app.router.add_static("/files", files)
    app.router.add_route("*", "/{rest:.*}", echo)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
