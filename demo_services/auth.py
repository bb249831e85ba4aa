"""auth: issues and verifies tokens. Called by clients, and by `orders` through the mesh.

`POST /auth/login` {"user"} → {"token"}; `GET /auth/verify` with a bearer token → {"user"}.
"""

import os
import time

import jwt
from aiohttp import web

from demo_services.replica import Replica, Work, serve

# The key of a demonstration; a real deployment sets its own in the environment.
SECRET = os.environ.get("JWT_SECRET", "food-delivery-demo-key-of-32-bytes!")
LIFETIME = 3600
"""Seconds that a token is valid."""


def issue(user: str, now: float) -> str:
    """Return a signed token for `user`, valid for LIFETIME seconds from `now` (Unix time)."""
    return jwt.encode({"sub": user, "exp": int(now) + LIFETIME}, SECRET, algorithm="HS256")


def verify_header(header: str) -> str:
    """Return the user of an `Authorization` header. Raises jwt.InvalidTokenError."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise jwt.InvalidTokenError("expected a bearer token")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["sub", "exp"]})
    return str(claims["sub"])


def build(replica: Replica) -> web.Application:
    """Return the application of one replica."""

    async def login(request: web.Request) -> web.Response:
        body = await request.json()
        user = body.get("user") if isinstance(body, dict) else None
        if not isinstance(user, str) or not user:
            raise web.HTTPBadRequest(text='expected {"user": NAME}')
        async with replica.busy():
            return web.json_response({"token": issue(user, time.time())})

    async def verify(request: web.Request) -> web.Response:
        async with replica.busy():
            try:
                user = verify_header(request.headers.get("Authorization", ""))
            except jwt.InvalidTokenError as error:
                raise web.HTTPUnauthorized(text=str(error)) from error
            return web.json_response({"user": user})

    app = web.Application()
    app.router.add_post("/auth/login", login)
    app.router.add_get("/auth/verify", verify)
    return app


if __name__ == "__main__":
    serve("auth", Work(mean=0.008, concurrency=8), build)
