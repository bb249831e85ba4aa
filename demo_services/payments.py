"""payments: takes each payment once, even if the request is repeated.

`POST /payments` {"id", "amount"} → {"id", "amount", "status", "repeated"}. The mesh lets only
`orders` call it.
"""

import asyncio
import json

from aiohttp import web

from demo_services.document_store import DocumentStore
from demo_services.replica import Replica, Work, serve


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""
    payments = DocumentStore("payments")

    async def pay(request: web.Request) -> web.Response:
        body = await request.json()
        match body:
            case {"id": str(key), "amount": int(amount)} if key and amount > 0:
                pass
            case _:
                raise web.HTTPBadRequest(text='expected {"id": TEXT, "amount": CENTS above 0}')
        async with replica.busy():
            record = json.dumps({"id": key, "amount": amount, "status": "paid"})
            first = await asyncio.to_thread(payments.put, key, record)
        return web.json_response(
            {"id": key, "amount": amount, "status": "paid", "repeated": not first},
            status=201 if first else 200,
        )

    app = web.Application()
    app.router.add_post("/payments", pay)
    return app


if __name__ == "__main__":
    serve("payments", Work(mean=0.03, concurrency=4), build)
