"""orders: verifies the token, checks the menu, takes the payment, and stores the order.

The other services are called through the mesh. `POST /orders` {"restaurant", "dishes": [id]} with a
bearer token → 201 and the order; `GET /orders/ID` → the order.
"""

import asyncio
import json
import uuid
from typing import Any

import aiohttp
from aiohttp import web

from demo_services.document_store import DocumentStore
from demo_services.replica import Replica, Work, mesh_url, serve
from demo_services.tracing import outgoing

SESSION = web.AppKey("session", aiohttp.ClientSession)
STORE = web.AppKey("store", DocumentStore)


class DependencyError(web.HTTPBadGateway):
    """A service that orders depends on failed or did not respond."""


async def call(
    session: aiohttp.ClientSession, method: str, service: str, path: str, **arguments: Any
) -> Any:
    """Call another service and return its JSON response. Status 401 and 404 are passed on; any
    other failure raises DependencyError, which names the service and the problem. The call is part
    of the trace of the current request."""
    headers = {**arguments.pop("headers", {}), **outgoing()}
    url = mesh_url(service) + path
    try:
        async with session.request(method, url, headers=headers, **arguments) as response:
            if response.status in (401, 404):
                text = await response.text()
                raise (
                    web.HTTPUnauthorized(text=text)
                    if response.status == 401
                    else web.HTTPNotFound(text=text)
                )
            if response.status >= 300:
                raise DependencyError(text=f"{service} answered {response.status}")
            return await response.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DependencyError(text=f"{service} did not answer: {error!r}") from error


async def place(app: web.Application, authorization: str, order: dict[str, Any]) -> dict[str, Any]:
    """Place an order with the help of the three other services, and store it."""
    session = app[SESSION]
    user = await call(
        session, "GET", "auth", "/auth/verify", headers={"Authorization": authorization}
    )
    menu = await call(session, "GET", "restaurants", f"/restaurants/{order['restaurant']}/menu")
    prices = {dish["id"]: dish["price"] for dish in menu["menu"]}
    unknown = [dish for dish in order["dishes"] if dish not in prices]
    if unknown:
        raise web.HTTPUnprocessableEntity(text=f"not on the menu: {unknown}")
    key = uuid.uuid4().hex
    amount = sum(prices[dish] for dish in order["dishes"])
    await call(session, "POST", "payments", "/payments", json={"id": key, "amount": amount})
    placed = {"id": key, "user": user["user"], "amount": amount, **order}
    await asyncio.to_thread(app[STORE].put, key, json.dumps(placed))
    return placed


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""

    async def create(request: web.Request) -> web.Response:
        match await request.json():
            case {"restaurant": int(restaurant), "dishes": [_, *_] as dishes}:
                order = {"restaurant": restaurant, "dishes": dishes}
            case _:
                raise web.HTTPBadRequest(text='expected {"restaurant": ID, "dishes": [ID, …]}')
        async with replica.busy():
            placed = await place(request.app, request.headers.get("Authorization", ""), order)
        return web.json_response(placed, status=201)

    async def show(request: web.Request) -> web.Response:
        async with replica.busy():
            order = await asyncio.to_thread(request.app[STORE].get, request.match_info["id"])
        if order is None:
            raise web.HTTPNotFound(text="no such order")
        return web.json_response(text=order)

    async def session(app: web.Application) -> Any:
        timeout = aiohttp.ClientTimeout(total=15)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as opened:
            app[SESSION] = opened
            yield

    app = web.Application()
    app[STORE] = DocumentStore("orders")
    app.cleanup_ctx.append(session)
    app.router.add_post("/orders", create)
    app.router.add_get("/orders/{id}", show)
    return app


if __name__ == "__main__":
    serve("orders", Work(mean=0.02, concurrency=16), build)
