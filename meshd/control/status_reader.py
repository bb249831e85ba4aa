"""Reads the current status of the mesh, for the API and for `/metrics`.

`meshd.control.facade` and `meshd.telemetry.metrics` call it; `status` has the pure functions.
"""

import dataclasses
from collections.abc import Callable, Iterator
from importlib import metadata

import msgspec

from meshd.api.dto import ImageStatus, ServiceStatus, Status
from meshd.control.status import by_service, project_statuses, service_status
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.runtime.base import Runtime
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.usage_sampler import UsageSampler


class StatusReader:
    """Builds the status from the state as of the last pass. `firewall_state` returns the state of
    the host firewall, `addresses_state` that of virtual addresses, `enforcement_state` that of
    `x-mesh.enforce`; empty if there is none."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        store: Store,
        events: EventLog,
        reconciler: Reconciler,
        claims: ProjectClaims,
        publisher: Publisher,
        gateways: Gateways,
        ingest: Ingest,
        sampler: UsageSampler,
        firewall_state: Callable[[], str],
        addresses_state: Callable[[], str],
        enforcement_state: Callable[[], str],
        is_ending: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._events = events
        self._reconciler = reconciler
        self._claims = claims
        self._publisher = publisher
        self._gateways = gateways
        self._ingest = ingest
        self._sampler = sampler
        self._firewall_state = firewall_state
        self._addresses_state = addresses_state
        self._enforcement_state = enforcement_state
        self._is_ending = is_ending
        self._clock = clock

    def status(self) -> Status:
        """Return the status of the daemon with its services and projects."""
        services = tuple(self.services())
        projects = project_statuses(
            self._store.projects, services, self._claims.held_elsewhere, self._claims.refusals
        )
        return msgspec.structs.replace(self.daemon(), services=services, projects=projects)

    def services(self) -> Iterator[ServiceStatus]:
        """Yield the status of every service, each as of the moment it is yielded."""
        view = self._reconciler.view()
        groups = by_service(view.observed.replicas)
        waiting = dict(view.plan.waiting)
        for service in view.desired.services:
            now = self._clock()
            yield service_status(
                service,
                groups.get(service.key, ()),
                view.observed,
                waiting.get(service.key, ""),
                self._ingest,
                self._store.override(service.key, now),
                self._events.last_of(service.key),
                self._sampler.loads,
                self._gateways.with_chosen_ports(service.key, service.spec),
                self._gateways.virtual.addresses_of(service.key),
                now,
            )

    def daemon(self) -> Status:
        """Return the status of the daemon without its services and projects."""
        generation = self._publisher.generation
        internal = {each.address for each in self._gateways.listeners()}
        bound = self._publisher.bound.items()
        available = self._reconciler.view().observed.available
        return Status(
            version=version(),
            runtime=self._runtime.name,
            runtime_state="ok" if available else "does not answer",
            generation=(generation.epoch, generation.number),
            workers=self._publisher.live,
            proxy=tuple(address for asked, address in bound if asked not in internal),
            adopts=self._claims.adopts,
            filter=self._firewall_state(),
            images=tuple(
                ImageStatus(**dataclasses.asdict(each)) for each in self._runtime.image_progress()
            ),
            addresses=self._addresses(),
            enforcement=self._enforcement_state(),
            store_state=self._store.problem or "ok",
            ending=self._is_ending(),
        )

    def _addresses(self) -> str:
        """Return whether services have virtual addresses, and which networks have none."""
        state = self._addresses_state()
        networks = self._gateways.virtual.networks_without()
        if state != "on" or not networks:
            return state
        return f"missing: {', '.join(networks)}"


def version() -> str:
    """Return the installed version."""
    return metadata.version("meshd")
