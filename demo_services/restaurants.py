"""restaurants: search and menus. Called by clients, and by `orders` through the mesh.

`GET /restaurants?q=WORDS` → a list; `GET /restaurants/ID/menu` → the dishes.
"""

from dataclasses import asdict

from aiohttp import web

from demo_services import catalogue
from demo_services.replica import Replica, Work, serve


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""
    catalogue.restaurants()  # built now, so that the first request does not wait for it

    async def search(request: web.Request) -> web.Response:
        async with replica.busy():
            found = catalogue.search(request.query.get("q", ""))
            return web.json_response([restaurant.summary() for restaurant in found])

    async def menu(request: web.Request) -> web.Response:
        async with replica.busy():
            id = request.match_info["id"]
            found = catalogue.find(int(id)) if id.isdecimal() else None
            if found is None:
                raise web.HTTPNotFound(text=f"no restaurant {id}")
            dishes = [asdict(dish) for dish in found.menu]
            return web.json_response({"id": found.id, "menu": dishes})

    app = web.Application()
    app.router.add_get("/restaurants", search)
    app.router.add_get("/restaurants/{id}/menu", menu)
    return app


if __name__ == "__main__":
    serve("restaurants", Work(mean=0.04, concurrency=4), build)
