"""orders: checks the token, the menu and the payment, all through the mesh, then stores.

`POST /orders` {"restaurant", "dishes": [id]} with a bearer token → 201 and the order;
`GET /orders/ID` → the order.
"""

import asyncio
import json
import uuid
from typing import Any

import aiohttp
from aiohttp import web

from demo_services.ledger import Ledger
from demo_services.replica import Replica, Work, mesh_url, serve

SESSION = web.AppKey("session", aiohttp.ClientSession)
LEDGER = web.AppKey("ledger", Ledger)


class Dependency(web.HTTPBadGateway):
    """A service that orders needs did not answer as it should."""


async def call(
    session: aiohttp.ClientSession, method: str, service: str, path: str, **arguments: Any
) -> Any:
    """The JSON answer of another service. A client error there is passed on as it is;
    anything else raises Dependency, which names the service and what it said."""
    try:
        async with session.request(method, mesh_url(service) + path, **arguments) as answer:
            if answer.status in (401, 404):
                text = await answer.text()
                raise (
                    web.HTTPUnauthorized(text=text)
                    if answer.status == 401
                    else web.HTTPNotFound(text=text)
                )
            if answer.status >= 300:
                raise Dependency(text=f"{service} answered {answer.status}")
            return await answer.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Dependency(text=f"{service} did not answer: {error!r}") from error


async def place(app: web.Application, authorization: str, order: dict[str, Any]) -> dict[str, Any]:
    """Carry one order through the three services and store it."""
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
    await asyncio.to_thread(app[LEDGER].put, key, json.dumps(placed))
    return placed


def build(replica: Replica) -> web.Application:
    """The application of one replica."""

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
            found = await asyncio.to_thread(request.app[LEDGER].get, request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text="no such order")
        return web.json_response(text=found)

    async def session(app: web.Application) -> Any:
        timeout = aiohttp.ClientTimeout(total=15)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as opened:
            app[SESSION] = opened
            yield

    app = web.Application()
    app[LEDGER] = Ledger("orders")
    app.cleanup_ctx.append(session)
    app.router.add_post("/orders", create)
    app.router.add_get("/orders/{id}", show)
    return app


if __name__ == "__main__":
    serve("orders", Work(mean=0.02, concurrency=16), build)
