"""The connection to a Docker Engine: its address, time limits, and errors as those of
`meshd.runtime.base`.

Every other module of this package talks to the engine through `Engine.request`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError
from yarl import URL

from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.endpoint import (
    BadEndpoint,
    EngineEndpoint,
    describe_refusal,
    find_endpoint,
)

API_VERSION = (1, 41)
"""The API version this code is written for (Engine 20.10). A newer engine is used with it as
long as it accepts it."""
CONNECT_TIMEOUT = 5.0
"""Seconds to open a connection to the engine."""
PATIENCE = 20.0
"""Seconds for what an engine answers at once; starting, stopping and pulling have their own
limits."""
UNREACHABLE = 900
"""The status that aiodocker reports when no connection was possible."""

Info = dict[str, Any]


class _Docker(Docker):
    """aiodocker's client. Its own requests keep their connection until the garbage collector finds
    it if their reader stops before the end; these give it back at once."""

    @asynccontextmanager
    async def _query(self, *args: Any, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with super()._query(*args, **options) as response:
            try:
                yield response
            finally:
                response.close()


class Engine:
    """One engine; unless `find` says otherwise the one that DOCKER_HOST, the Docker context or the
    default socket names."""

    def __init__(self, find: Callable[[], EngineEndpoint] = find_endpoint) -> None:
        self._find = find
        self._docker: Docker | None = None
        self._endpoint: EngineEndpoint | None = None
        self._newest = API_VERSION

    @property
    def newest_api(self) -> tuple[int, int]:
        """The newest version of its API that the engine has."""
        return self._newest

    def version_for(self, needed: tuple[int, int]) -> str:
        """Return the API version for a request with features that `needed` introduced: the usual
        one if that is enough, else `needed` or the newest that the engine has."""
        if self._docker is None:
            raise RuntimeUnavailable("the Docker Engine is not connected")
        usual = str(self._docker.api_version)
        if needed <= _numbers(usual.removeprefix("v")):
            return usual
        major, minor = min(needed, self._newest)
        return f"v{major}.{minor}"

    @property
    def is_local(self) -> bool:
        """Whether the engine is reached through a Unix socket."""
        return self._endpoint is not None and bool(self._endpoint.socket_path)

    async def open(self) -> None:
        """Connect and agree on an API version. Raises RuntimeUnavailable; BadEndpoint if the
        settings name no engine that meshd can use."""
        await self.close()
        self._endpoint = self._find()
        docker = _client(self._endpoint)
        try:
            async with _request(docker, self._endpoint) as client:
                url = URL(f"{client.docker_host}/version")
                async with client.session.get(url) as response:
                    response.raise_for_status()
                    version = await response.json(content_type=None)
            docker.api_version = api_version(version)
        except RuntimeFailure:
            await docker.close()
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            await docker.close()
            raise RuntimeUnavailable(f"{self._endpoint} is not a Docker Engine") from error
        self._newest = _numbers(version["ApiVersion"])
        # Set last: until then callers get "not connected".
        self._docker = docker

    async def close(self) -> None:
        """Close the connections."""
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    @asynccontextmanager
    async def request(
        self,
        patience: float | None = PATIENCE,
        errors: Mapping[int, RuntimeFailure] | None = None,
        otherwise: type[RuntimeFailure] = RuntimeFailure,
    ) -> AsyncIterator[Docker]:
        """Yield the client for one request that may take `patience` seconds (None: no limit).

        Raises RuntimeUnavailable if the engine does not answer; otherwise the error that `errors`
        gives for the status, or `otherwise` with the engine's own text.
        """
        if self._docker is None:
            raise RuntimeUnavailable("the Docker Engine is not connected")
        async with _request(self._docker, self._endpoint, patience, errors, otherwise) as docker:
            yield docker

    @asynccontextmanager
    async def events(
        self, types: Sequence[str] = ("container", "network")
    ) -> AsyncIterator[AsyncIterator[Info]]:
        """Yield the events of objects of these types from now on: of containers, and of networks
        that they join and leave. The stream ends when the engine closes it. Raises
        RuntimeUnavailable."""
        if self._docker is None:
            raise RuntimeUnavailable("the Docker Engine is not connected")
        docker = self._docker
        # The engine sends its headers a moment before it subscribes; `since` covers that moment.
        filters = {"type": list(types)}
        params = {"filters": json.dumps(filters), "since": f"{time.time():.6f}"}
        url = URL(f"{docker.docker_host}/{docker.api_version}/events")
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
        try:
            async with docker.session.get(url, params=params, timeout=timeout) as response:
                response.raise_for_status()
                yield _lines(response)
        except (aiohttp.ClientError, OSError) as error:
            raise RuntimeUnavailable(f"no events from the Docker Engine: {error}") from error

    async def events_of(
        self, container: str, action: str, since: float, until: float
    ) -> Sequence[Info]:
        """Return the events of one kind of a container between two times, in Unix seconds by the
        engine's clock. The answer comes at the second time, if that is ahead. Raises
        RuntimeUnavailable."""
        filters = {"type": ["container"], "container": [container], "event": [action]}
        params = {
            "filters": json.dumps(filters), "since": f"{since:.6f}", "until": f"{until:.6f}"
        }  # fmt: skip
        async with self.request(PATIENCE + max(0.0, until - since)) as docker:
            url = URL(f"{docker.docker_host}/{docker.api_version}/events")
            async with docker.session.get(url, params=params) as response:
                response.raise_for_status()
                return [event async for event in _lines(response)]


@asynccontextmanager
async def _request(
    docker: Docker,
    endpoint: EngineEndpoint | None,
    patience: float | None = PATIENCE,
    errors: Mapping[int, RuntimeFailure] | None = None,
    otherwise: type[RuntimeFailure] = RuntimeFailure,
) -> AsyncIterator[Docker]:
    """See `Engine.request`."""
    name = f"the Docker Engine at {endpoint}"
    try:
        async with asyncio.timeout(patience):
            yield docker
    except TimeoutError as error:
        raise RuntimeUnavailable(f"{name} did not answer in {patience:g} s") from error
    except DockerError as error:
        if error.status == UNREACHABLE:
            raise RuntimeUnavailable(_unreachable(endpoint, error.__context__)) from error
        raise (errors or {}).get(error.status, otherwise(error.message)) from error
    except aiohttp.ClientResponseError as error:
        raise RuntimeUnavailable(f"{name} answered {error.status} {error.message}") from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError) as error:
        raise RuntimeUnavailable(_unreachable(endpoint, error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise RuntimeUnavailable(f"{name} closed the connection: {error}") from error
    except RuntimeError as error:
        # aiohttp raises this when the session is closed during a request.
        if not docker.session.closed:
            raise
        raise RuntimeUnavailable("the connection to the Docker Engine is gone") from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[Info]:
    try:
        while line := await response.content.readline():
            yield json.loads(line)
    except ValueError as error:  # a line that is too long or incomplete
        raise RuntimeUnavailable(f"unreadable event from the Docker Engine: {error}") from error


def _unreachable(endpoint: EngineEndpoint | None, error: BaseException | None) -> str:
    """Return the text for an engine to which no connection was possible."""
    if endpoint is None:
        return f"the Docker Engine does not answer: {error}"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    return f"the Docker Engine at {endpoint} does not answer: {describe_refusal(endpoint, cause)}"


def _client(endpoint: EngineEndpoint) -> Docker:
    timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
    try:
        return _Docker(endpoint.url, timeout=timeout, ssl_context=endpoint.ssl_context())
    except (ValueError, OSError) as error:
        raise BadEndpoint(f"the Docker Engine at {endpoint} is not usable: {error}") from error


def api_version(version: Info) -> str:
    """Return the API version to use with an engine that answered `/version`: ours, or the oldest
    it still accepts, or the newest it has."""
    newest = _numbers(version["ApiVersion"])
    oldest = _numbers(version.get("MinAPIVersion") or "1.0")
    major, minor = min(max(API_VERSION, oldest), newest)
    return f"v{major}.{minor}"


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
