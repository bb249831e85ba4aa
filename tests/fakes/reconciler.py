"""A reconciler on a simulated runtime, without jobs, in virtual time."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

from meshd.discovery.watch import RuntimeWatcher
from meshd.model.job import HookState
from meshd.model.operation import RunHook
from meshd.model.replica import RandomSource
from meshd.publish.compile import EdgeSettings
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.publish.virtual_addresses import VirtualAddresses
from meshd.reconcile.execute.apply import RolloutHooks
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.reconcile.rollout.analysis_feed import TrafficSource
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.virtual_addresses import VirtualAddressLog
from proxy.wire.snapshot import Snapshot
from tests.fakes import virtual
from tests.fakes.sim_runtime import SimRuntime


class NoJobs:
    """No job runs."""

    def callers(self) -> Mapping[str, str]:
        return {}

    def addresses(self) -> Mapping[str, str]:
        return {}

    def working_projects(self) -> frozenset[str]:
        return frozenset()


class NoHooks:
    """Rollouts without hooks."""

    def begin(self, hook: RunHook) -> None:
        raise AssertionError(f"unexpected hook {hook}")

    def states(self, ids: Iterable[str]) -> Mapping[str, HookState]:
        return {}


class ControlLife:
    """One life of the control process, as far as replicas go; `run` its parts as tasks."""

    def __init__(
        self,
        *,
        runtime: SimRuntime,
        store: Store,
        events: EventLog,
        held_snapshot: Snapshot | None = None,
        hooks: RolloutHooks | None = None,
        traffic: TrafficSource | None = None,
        adopts: bool = True,
        dice: RandomSource | None = None,
        start_slots: Callable[[], int] = int,
    ) -> None:
        wake = asyncio.Event()
        self.publisher = Publisher(
            store.path.parent / "none", store.next_epoch(), lambda message: wake.set()
        )
        self.watch = watch = RuntimeWatcher(runtime, wake.set)
        self.claims = ProjectClaims(runtime, store, lambda: watch.replicas, wake.set, adopts)
        self.reconciler = Reconciler(
            runtime=runtime,
            watch=watch,
            store=store,
            events=events,
            publisher=self.publisher,
            gateways=Gateways(runtime, VirtualAddresses(VirtualAddressLog(store))),
            claims=self.claims,
            held_snapshot=held_snapshot,
            wake=wake,
            probe=runtime.probe,
            jobs=NoJobs(),
            hooks=hooks or NoHooks(),
            traffic=traffic,
            in_flight={},
            start_slots=start_slots,
            on_ready=lambda key, seconds: None,
            edge=EdgeSettings(),
            clock=virtual.clock,
            random=dice or random.Random(),
        )
