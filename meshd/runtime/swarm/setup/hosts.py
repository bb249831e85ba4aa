"""The engines that become a Swarm: open them, read what they are, take the steps of a plan.

Used by `meshd.cli.commands.bootstrap`. A join token is read from a manager and sent to an engine;
it is never printed, logged or part of a command.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.endpoint import EngineEndpoint, find_endpoint, find_named
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.swarm.setup.addresses import address_of, advertised_address
from meshd.runtime.swarm.setup.plan import HostAction, HostFacts, HostStep, NodeRole
from meshd.runtime.swarm.setup.ssh_tunnel import SshTunnel

THIS_ENGINE: Final = "this engine"
"""How the engine is called that DOCKER_HOST, the Docker context or the default socket names."""
JOIN_PATIENCE: Final = 60.0
"""Seconds to start or join a Swarm: managers elect a leader meanwhile."""
READY_SECONDS: Final = 30.0
"""Seconds until a node that joined is ready."""
POLL_SECONDS: Final = 0.3
"""Seconds between two looks at the nodes."""
PORT: Final = 2377
"""Port of a manager for other nodes."""


@dataclass(slots=True)
class Host:
    """One engine. `address`: the IP address or network interface by which other nodes reach it;
    empty: the engine chooses."""

    name: str
    engine: Engine
    address: str

    async def read(self) -> HostFacts:
        """Return what the engine is."""
        async with self.engine.request() as docker:
            info: Info = dict(await docker.system.info())
        swarm: Info = info.get("Swarm") or {}
        state = str(swarm.get("LocalNodeState") or "inactive")
        manages = bool(swarm.get("ControlAvailable"))
        role = (NodeRole.MANAGER if manages else NodeRole.WORKER) if state == "active" else None
        return HostFacts(
            host=self.name,
            name=str(info.get("Name", "")),
            id=str(info.get("ID", "")),
            state=state,
            role=role,
            managers=frozenset(each["NodeID"] for each in swarm.get("RemoteManagers") or ()),
            api=self.engine.newest_api,
            live_restore=bool(info.get("LiveRestoreEnabled")),
        )

    async def query(self, method: str, path: str, body: Info | None = None) -> Info:
        """Send a request about the Swarm. Raises RuntimeFailure with the engine's text and the
        host's name."""
        data = json.dumps(body) if body is not None else None
        try:
            async with self.engine.request(JOIN_PATIENCE) as docker:
                found = await docker._query_json(path, method, data=data)
        except RuntimeFailure as failure:
            raise type(failure)(f"{self.name}: {failure}") from failure
        return dict(found) if isinstance(found, Mapping) else {}


@asynccontextmanager
async def open_hosts(
    names: Sequence[str], addresses: Mapping[str, str] | None = None
) -> AsyncIterator[list[Host]]:
    """Yield the engines of these names: `ssh://`, `tcp://` and `unix://` addresses, Docker
    contexts, or `THIS_ENGINE`. `addresses` by name are where other nodes reach them, if that is not
    the host in the name; None: the caller does not need them.

    Raises RuntimeUnavailable if one does not answer, RuntimeFailure if an address is not valid.
    """
    async with AsyncExitStack() as stack:
        yield [await _open(name, addresses, stack) for name in names]


async def _open(name: str, addresses: Mapping[str, str] | None, stack: AsyncExitStack) -> Host:
    endpoint = find_endpoint() if name == THIS_ENGINE else find_named(name)
    address = "" if addresses is None else await _find_address(name, endpoint, addresses)
    if not endpoint.address.startswith("ssh://"):
        engine = Engine(lambda: endpoint)
        await engine.open()
    else:
        tunnel = SshTunnel(endpoint.address)
        path = await stack.enter_async_context(tunnel.open())
        engine = Engine(lambda: EngineEndpoint(f"unix://{path}", endpoint.address))
        try:
            await engine.open()
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(f"{name}: {tunnel.said or error}") from error
    stack.push_async_callback(engine.close)
    return Host(name, engine, address)


async def _find_address(name: str, endpoint: EngineEndpoint, addresses: Mapping[str, str]) -> str:
    """Return where other nodes reach a host; empty: its engine chooses."""
    if given := addresses.get(name):
        try:
            return await advertised_address(given)
        except RuntimeFailure as failure:
            raise RuntimeFailure(f"--advertise {name}={given}: {failure}") from failure
    return (
        "" if endpoint.socket_path else await address_of(urlsplit(endpoint.address).hostname or "")
    )


async def take_steps(
    hosts: Sequence[Host], steps: Sequence[HostStep], done: Callable[[HostStep], None]
) -> None:
    """Take the steps of a plan in their order, and report each one that is done. Raises
    RuntimeFailure; the steps before have been taken, and a repeated call continues."""
    by_name = {host.name: host for host in hosts}
    manager = by_name[next(each.host for each in steps if each.role is NodeRole.MANAGER)]
    for step in steps:
        host = by_name[step.host]
        listen = {"ListenAddr": f"0.0.0.0:{PORT}"}
        listen |= {"AdvertiseAddr": host.address} if host.address else {}
        if step.action is HostAction.INIT:
            await host.query("POST", "swarm/init", dict(listen))
        elif step.action is HostAction.JOIN:
            await _join(host, manager, step.role, listen)
        done(step)


async def _join(host: Host, manager: Host, role: NodeRole, listen: Mapping[str, str]) -> None:
    tokens = (await manager.query("GET", "swarm"))["JoinTokens"]
    managed = (await manager.query("GET", "info"))["Swarm"]
    where = [each["Addr"] for each in managed["RemoteManagers"]]
    token = tokens["Manager" if role is NodeRole.MANAGER else "Worker"]
    await host.query("POST", "swarm/join", {**listen, "RemoteAddrs": where, "JoinToken": token})
    node = (await host.query("GET", "info"))["Swarm"]["NodeID"]
    end = time.monotonic() + READY_SECONDS
    while (await manager.query("GET", f"nodes/{node}"))["Status"]["State"] != "ready":
        if time.monotonic() > end:
            raise RuntimeUnavailable(
                f"{host.name} joined, but is not ready after {READY_SECONDS:.0f} s; are the ports "
                "2377/tcp, 7946/tcp and udp, and 4789/udp open between the nodes?"
            )
        await asyncio.sleep(POLL_SECONDS)
