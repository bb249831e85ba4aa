"""The application of `real_servers` for ASGI, run by uvicorn."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
MIB = bytes(range(256)) * 4096


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request or WebSocket."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await _socket(receive, send)
    else:
        await _request(scope, receive, send)


async def _socket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        content = {key: event.get(key) for key in ("text", "bytes") if event.get(key) is not None}
        await send({"type": "websocket.send", **content})


async def _request(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}

    async def start(status: int, **fields: str) -> None:
        named = [(k.replace("_", "-").encode(), v.encode()) for k, v in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": named})

    async def body(data: bytes, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    path = scope["path"]
    if path == "/large":
        await start(200)
        for _ in range(int(parse_qs(scope["query_string"].decode())["mib"][0])):
            await body(MIB, more=True)
        await body(b"")
    elif path == "/events":
        await start(200, content_type="text/event-stream")
        for number in range(5):
            await body(b"data: %d\n\n" % number, more=True)
            await asyncio.sleep(0.2)
        await body(b"data: end\n\n")
    elif path == "/gzip":
        packed = gzip.compress(MIB, mtime=0)
        await start(200, content_encoding="gzip", content_length=str(len(packed)))
        await body(packed)
    elif path == "/etag":
        known = headers.get("if-none-match") == '"v1"'
        await start(304 if known else 200, etag='"v1"')
        await body(b"" if known else b"version one")
    else:
        digest, size, more = hashlib.sha256(), 0, True
        while more:
            event = await receive()
            digest.update(event.get("body", b""))
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        received = {
            "method": scope["method"],
            "target": scope["raw_path"].decode()
            + (f"?{scope['query_string'].decode()}" if scope["query_string"] else ""),
            "size": size,
            "sha256": digest.hexdigest(),
            "length": headers.get("content-length"),
            "encoding": headers.get("transfer-encoding"),
        }
        text = json.dumps(received).encode()
        await start(200, content_type="application/json", content_length=str(len(text)))
        await body(text)
