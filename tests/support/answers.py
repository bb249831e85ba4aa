"""Responses of aiohttp in tests."""

from contextlib import AbstractAsyncContextManager

import aiohttp


async def status_of(request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> int:
    """Send a request, read its response, and return the status. A response that is not read keeps
    its connection until the garbage collector finds it."""
    async with request as answer:
        await answer.read()
        return answer.status
