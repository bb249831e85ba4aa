"""The addresses of containers on the networks of given services, as `enforcement` needs them.

Used by `runtime`. The engine knows a container's networks and process; the host's interface of a
container is found through the container's own view of `/sys`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from meshd.model.service_key import service_key
from meshd.runtime.base import ReplicaNotFound
from meshd.runtime.docker.create import inspect
from meshd.runtime.docker.enforcement_rules import ContainerAddress
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.network import bridge
from meshd.runtime.docker.observe import is_replica
from meshd.spec import labels

_log = structlog.stdlib.get_logger(__name__)
PROCESSES: Final = Path("/proc")
INTERFACES: Final = Path("/sys/class/net")


async def find_attachments(engine: Engine, services: Collection[str]) -> Sequence[ContainerAddress]:
    """Return the address of each container on each network that a replica of `services`
    (`PROJECT/SERVICE`) has joined. Raises RuntimeUnavailable."""
    async with engine.request() as docker:
        networks = {each["Id"]: each for each in await docker.networks.list()}
        containers = await docker.containers.list()
    listed = [container._container for container in containers]
    guarded = {info["Id"] for info in listed if _is_guarded(info, services)}
    shared = {
        endpoint["NetworkID"]
        for info in listed
        if info["Id"] in guarded
        for endpoint in _endpoints(info)
        if networks.get(endpoint["NetworkID"], {}).get("Driver") == "bridge"
    }
    bridges = {each: bridge(networks[each]).interface for each in shared}
    infos = []
    for info in listed:
        if any(endpoint["NetworkID"] in bridges for endpoint in _endpoints(info)):
            with contextlib.suppress(ReplicaNotFound):  # removed since it was listed
                infos.append(await inspect(engine, info["Id"]))
    return await asyncio.to_thread(_attach, infos, guarded, bridges)


def _is_guarded(listed: Info, services: Collection[str]) -> bool:
    marks = listed["Labels"] or {}
    if not is_replica(marks):
        return False
    name = labels.service_of(marks) or listed["Names"][0].removeprefix("/")
    return service_key(labels.project_of(marks), name) in services


def _endpoints(info: Info) -> Sequence[Info]:
    return tuple((info["NetworkSettings"]["Networks"] or {}).values())


def _attach(
    infos: Sequence[Info], guarded: Collection[str], bridges: Mapping[str, str]
) -> Sequence[ContainerAddress]:
    found = []
    for info in infos:
        mine = [each for each in _endpoints(info) if each["NetworkID"] in bridges]
        if not mine:
            continue
        ports = host_interfaces(PROCESSES / str(info["State"]["Pid"]) / "root/sys/class/net")
        for endpoint in mine:
            name = bridges[endpoint["NetworkID"]]
            port = ports.get(endpoint.get("MacAddress", ""), "")
            if not port or (INTERFACES / port / "master").resolve().name != name:
                port = ""
                _log.info("address is not protected", container=info["Name"], reason="no interface")
            found += [
                ContainerAddress(name, address, port, info["Id"] in guarded)
                for address in (endpoint.get("IPAddress"), endpoint.get("GlobalIPv6Address"))
                if address
            ]
    return found


def host_interfaces(folder: Path) -> Mapping[str, str]:
    """Return the host's interface of each interface in a container's `/sys/class/net`, by the
    latter's hardware address."""
    found = {}
    try:
        for entry in sorted(folder.iterdir()):
            peer = int((entry / "iflink").read_text())
            hardware = (entry / "address").read_text().strip()
            if peer != int((entry / "ifindex").read_text()):
                found[hardware] = socket.if_indextoname(peer)
    except (OSError, ValueError):  # the container has ended, or has no /sys
        pass
    return found
