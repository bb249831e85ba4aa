# ruff: noqa: ARG002 (a protocol with arguments that a simulation does not need)
"""A simulated runtime for `bench.control`: thousands of replicas at no cost to the measurement."""

import itertools
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final

from meshd.discovery.probe import PLAIN, ProbeOpening
from meshd.model.runtime import (
    AddressRange,
    Capabilities,
    Holder,
    ImageProgress,
    MeshAddress,
    Node,
    ObservedReplica,
    PortRedirect,
    PortRedirects,
    ReplicaSpec,
    ReplicaState,
    Usage,
)
from meshd.runtime.base import RuntimeEvent
from meshd.spec.model import HealthCheck, Network, Project, Service

STARTED: Final = 1_700_000_000.0
"""Start of every replica, Unix time; any time in the past."""


def address(number: int) -> str:
    """Return the number-th address of a network of sixteen million."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class SimulatedRuntime:
    """The `Runtime` protocol over a table in memory. Starting and stopping take no time."""

    name = "simulated"
    token_address = ""
    own_node = ""
    capabilities = Capabilities(True, True, True, True, True, True, True)

    def __init__(self) -> None:
        self.replicas: dict[str, ObservedReplica] = {}
        self._numbers = itertools.count(1)

    def populate(self, project: Project, revisions: Mapping[str, str]) -> None:
        """Add the replicas of a project, all running."""
        for service in project.services:
            for number in range(service.replicas):
                name = f"{project.name}-{service.name}-{number}"
                self._add(name, project.name, service.name, revisions[service.name])

    def _add(self, name: str, project: str, service: str, revision: str) -> ObservedReplica:
        number = next(self._numbers)
        added = self.replicas[name] = ObservedReplica(
            name=name,
            runtime_id=f"{number:064x}",
            project=project,
            service=service,
            revision=revision,
            state=ReplicaState.RUNNING,
            managed=True,
            host=address(number),
            port=8080,
            node=self.name,
            created_at=STARTED,
            started_at=STARTED,
            addresses=(address(number),),
            labels={"mesh.project": project, "mesh.service": service, "mesh.revision": revision},
        )
        return added

    async def open(self) -> None:
        """Do nothing."""

    close = open

    async def nodes(self) -> Sequence[Node]:
        return [Node(self.name, 4096.0, 2**44)]

    async def list(self) -> Sequence[ObservedReplica]:
        return list(self.replicas.values())

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        for never in ():
            yield never

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        return services

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """Do nothing."""

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """Return a separate network for each service, numbered by name."""
        return [
            MeshAddress(name, f"172.{20 + n // 250}.{n % 250}.1", 80, f"172.{20 + n // 250}.0.0/16")
            for name in services
            for n in [int(name.rpartition("-")[2])]
        ]

    async def set_host_names(
        self,
        name: str,
        names: Mapping[str, str],
        blocks: Sequence[str],
    ) -> None:
        return None

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        return PortRedirects(frozenset(redirects))

    def image_progress(self) -> Sequence[ImageProgress]:
        return ()

    @property
    def is_local(self) -> bool:
        return False

    async def address_ranges(
        self,
        project: str,
    ) -> Sequence[AddressRange]:
        return ()

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        return self._add(replica.name, replica.project, replica.service.name, replica.revision)

    async def stop(self, name: str, grace: float) -> None:
        self.replicas.pop(name, None)

    async def remove(self, name: str) -> None:
        self.replicas.pop(name, None)

    async def pause(self, name: str) -> None:
        """Do nothing."""

    unpause = pause

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        return {}

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        return []

    async def follow(self, name: str) -> AsyncIterator[str]:
        for never in ():
            yield never

    async def claims(self) -> Mapping[str, Holder]:
        return {}

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        return holder

    async def unclaim(self, project: str, holder: Holder) -> None:
        """Do nothing."""

    async def teardown(self, project: str) -> None:
        """Do nothing."""

    async def probe(
        self,
        host: str,
        port: int,
        health: HealthCheck,
        path: str = "",
        opening: ProbeOpening = PLAIN,
    ) -> str | None:
        """Return None: every replica is healthy."""
        return None
