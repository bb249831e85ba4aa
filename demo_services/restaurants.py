"""restaurants: search and menus.

`GET /restaurants?q=WORDS` → a list; `GET /restaurants/ID/menu` → the dishes.
"""

from dataclasses import asdict

from aiohttp import web

from demo_services import catalogue
from demo_services.replica import Replica, Work, serve


def build(replica: Replica) -> web.Application:
    """The application of one replica."""
    catalogue.restaurants()

    async def search(request: web.Request) -> web.Response:
        async with replica.busy():
            found = catalogue.search(request.query.get("q", ""))
            return web.json_response([r.summary() for r in found])

    async def menu(request: web.Request) -> web.Response:
        async with replica.busy():
            number = request.match_info["id"]
            found = catalogue.find(int(number)) if number.isdecimal() else None
            if found is None:
                raise web.HTTPNotFound(text=f"no restaurant {number}")
            return web.json_response({"id": found.id, "menu": [asdict(d) for d in found.menu]})

    app = web.Application()
    app.router.add_get("/restaurants", search)
    app.router.add_get("/restaurants/{id}/menu", menu)
    return app


if __name__ == "__main__":
    serve("restaurants", Work(mean=0.04, concurrency=4), build)
