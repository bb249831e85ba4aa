"""Requests to the manager of a Swarm: services, tasks, nodes, configs and secrets as the engine's
own JSON.

Every other module of this package with I/O uses it. The connection and its errors are those of
`meshd.runtime.docker.engine`; a manager that is not the leader passes requests on to it.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Literal

from aiodocker import Docker, DockerError

from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.engine import Engine, Info

Collection = Literal["services", "tasks", "nodes", "configs", "secrets", "networks"]
UPDATE_TRIES: Final = 5
"""Attempts of an update: the version that it names changes whenever something else changes the
object."""
OUT_OF_SEQUENCE: Final = "update out of sequence"
"""Part of the Swarm's answer to an update of another version than the object has."""
NO_LEADER: Final = "swarm does not have a leader"
"""Part of the answer of a manager while no manager leads; its status is 500 or 503."""
PATIENCE: Final = 20.0
"""Seconds for a request. A manager without a majority of managers does not answer."""


class Gone(RuntimeFailure):
    """The object does not exist."""


class NameTaken(RuntimeFailure):
    """An object of that name exists."""


class OutOfSequence(RuntimeFailure):
    """The object has changed since it was read."""


def _no_limit() -> float:
    """Allow changes at any time: no other process leads."""
    return PATIENCE


class SwarmApi:
    """The objects of one Swarm, through one of its managers. `may_change` returns for how many
    seconds this process may still change anything; not positive: it may not, because another one
    leads."""

    def __init__(self, engine: Engine, may_change: Callable[[], float] = _no_limit) -> None:
        self._engine = engine
        self._may_change = may_change

    async def local_state(self) -> Info:
        """Return the manager's own description of its part in the Swarm. Raises RuntimeUnavailable
        if the engine is not a manager."""
        async with self._engine.request() as docker:
            info: Info = dict(await docker.system.info())
        swarm: Info = info.get("Swarm") or {}
        if swarm.get("LocalNodeState") != "active":
            raise RuntimeUnavailable(
                f"the engine on {info['Name']} is not part of a Swarm; run `docker swarm init` "
                "there, or name a manager of one with DOCKER_HOST"
            )
        if not swarm.get("ControlAvailable"):
            managers = ", ".join(each["Addr"] for each in swarm.get("RemoteManagers") or ())
            raise RuntimeUnavailable(
                f"the engine on {info['Name']} is a worker of a Swarm, and only a manager can "
                f"run meshd; managers: {managers or 'none known'}"
            )
        return {**swarm, "Name": info["Name"], "Logging": info["LoggingDriver"]}

    async def list(
        self, kind: Collection, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[Info]:
        """Return all objects of a kind that satisfy the filters."""
        params = {"filters": json.dumps(filters)} if filters else None
        async with self._request(PATIENCE) as docker:
            return list(await docker._query_json(kind, params=params) or ())

    async def inspect(self, kind: Collection, name: str) -> Info:
        """Return one object by name or id. Raises Gone."""
        async with self._request(PATIENCE, {404: Gone(f"no {name} exists")}) as docker:
            return dict(await docker._query_json(f"{kind}/{name}"))

    async def create(
        self,
        kind: Collection,
        body: Info,
        headers: Mapping[str, str] | None = None,
        otherwise: type[RuntimeFailure] = RuntimeFailure,
    ) -> str:
        """Create an object and return its id. Raises NameTaken; `otherwise` with the text of the
        Swarm."""
        taken = {409: NameTaken(f"{body['Name']} already exists")}
        async with self._request(self._patience(), taken, otherwise) as docker:
            made = await docker._query_json(
                f"{kind}/create", "POST", data=json.dumps(body), headers=headers
            )
        return str(made.get("ID") or made.get("Id"))

    async def delete(self, kind: Collection, name: str) -> None:
        """Delete an object. Raises Gone; RuntimeFailure if something uses it."""
        async with (
            self._request(self._patience(), {404: Gone(f"no {name} exists")}) as docker,
            docker._query(f"{kind}/{name}", "DELETE"),
        ):
            return

    async def update(
        self, kind: Literal["services", "nodes"], name: str, change: Callable[[Info], Info | None]
    ) -> None:
        """Replace the `Spec` of an object by what `change` returns for it; no change for None.
        Raises Gone."""
        for attempt in range(UPDATE_TRIES):
            found = await self.inspect(kind, name)
            wanted = change(found["Spec"])
            if wanted is None:
                return
            try:
                await self.replace(kind, found["ID"], found["Version"]["Index"], wanted)
            except OutOfSequence:
                if attempt == UPDATE_TRIES - 1:
                    raise
                continue
            return

    async def replace(
        self, kind: Literal["services", "nodes", "configs"], name: str, version: int, spec: Info
    ) -> None:
        """Replace the `Spec` of an object that has this version. Raises Gone; OutOfSequence if it
        has another one by now."""
        errors: dict[int, RuntimeFailure] = {404: Gone(f"no {name} exists")}
        async with self._request(self._patience(), errors) as docker:
            try:
                await docker._query_json(
                    f"{kind}/{name}/update",
                    "POST",
                    params={"version": str(version)},
                    data=json.dumps(spec),
                )
            except DockerError as error:
                if OUT_OF_SEQUENCE in str(error.message):
                    raise OutOfSequence(error.message) from error
                raise

    @asynccontextmanager
    async def _request(
        self,
        patience: float,
        errors: Mapping[int, RuntimeFailure] | None = None,
        otherwise: type[RuntimeFailure] = RuntimeFailure,
    ) -> AsyncIterator[Docker]:
        """See `Engine.request`. A Swarm without a leader raises RuntimeUnavailable: it answers
        again once its managers have elected one."""
        async with self._engine.request(patience, errors, otherwise) as docker:
            try:
                yield docker
            except DockerError as error:
                unavailable = error.status == HTTPStatus.SERVICE_UNAVAILABLE
                if unavailable or NO_LEADER in str(error.message):
                    raise RuntimeUnavailable(
                        f"the Swarm does not answer: {error.message}"
                    ) from error
                raise

    def _patience(self) -> float:
        """Return the seconds for a request that changes something. Raises RuntimeUnavailable if
        this process may change nothing."""
        left = self._may_change()
        if left <= 0.0:
            raise RuntimeUnavailable("this meshd does not lead, so that it changes nothing")
        return min(PATIENCE, left)
