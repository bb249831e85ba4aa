"""The warm pool in plans and in observation."""

from typing import Any

import pytest

from meshd.discovery.endpoints import endpoints_by_service
from meshd.model.desired import Desired, DesiredService
from meshd.model.operation import DrainReplica, StartReplica
from meshd.model.replica import ProbeResult, Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Capabilities, ObservedReplica, ReplicaState
from meshd.reconcile.observe.memory import ReconcileMemory, mark_drained, mark_resumed
from meshd.reconcile.observe.observe import Inputs, Observed, observe
from meshd.reconcile.plan.plan import plan
from meshd.reconcile.preview.simulate import simulate
from meshd.runtime.support import unsupported
from meshd.spec.model import Service
from tests.support.fixed_random import FixedRandom

NOW = 1000.0
KEY = "shop/web"


def web(count: int, warm: int, **more: Any) -> DesiredService:
    spec = Service.model_validate({"name": "web", "image": "app"})
    fields = {"revision": "new", "desired": count, "warm": warm, **more}
    return DesiredService(project="shop", spec=spec, **fields)


def replica(name: str, phase: Phase = Phase.READY, **more: Any) -> Replica:
    fields = {"revision": "new", "since": NOW - 1, "ready_since": 0.0, **more}
    if phase is Phase.READY:
        fields["ready_since"] = NOW - 5
    if phase is Phase.PAUSED:
        fields.setdefault("warm", True)
    return Replica(name=name, project="shop", service="web", phase=phase, **fields)


def warming(name: str, phase: Phase = Phase.PROBING, **more: Any) -> Replica:
    return replica(name, phase, warm=True, **more)


def steps(service: DesiredService, *replicas: Replica, **desired: Any) -> list[str]:
    observed = Observed(replicas=replicas, prepared=frozenset({(KEY, "new")}))
    wanted = Desired(services=(service,), projects=frozenset({"shop"}), **desired)
    lines = str(plan(wanted, observed, NOW, FixedRandom())).splitlines()
    return [line.partition(":")[0] for line in lines]


READY = replica("a")
CASES: list[tuple[str, DesiredService, tuple[Replica, ...], list[str]]] = [
    ("full", web(1, 1), (READY, replica("p", Phase.PAUSED)), []),
    ("filled once all serve", web(1, 1), (READY,), ["start shop-web-baaaa (new)"]),
    ("after those that serve", web(1, 1), (), ["start shop-web-baaaa (new)"]),
    ("on its way", web(1, 1), (READY, warming("p", Phase.STARTING)), []),
    ("not before it answered", web(1, 1), (READY, warming("p")), []),
    ("paused once it answered", web(1, 1), (READY, warming("p", answered=True)), ["pause p"]),
    ("not twice", web(1, 1), (READY, warming("p", answered=True, busy=True)), []),
    ("resumed first", web(2, 1), (READY, replica("p", Phase.PAUSED)),
     ["resume p", "start shop-web-baaaa (new)"]),
    ("even one that still starts", web(2, 0), (READY, warming("p")), ["resume p"]),
    ("the rest is started", web(3, 0), (READY, replica("p", Phase.PAUSED)),
     ["resume p", "start shop-web-baaaa (new)"]),
    ("resumed again", web(2, 0), (READY, replica("p", Phase.PAUSED, warm=False, resumed_at=NOW)),
     ["resume p"]),
    ("too many", web(1, 0), (READY, replica("p", Phase.PAUSED)), ["drain p"]),
    ("of another revision", web(1, 1), (READY, replica("p", Phase.PAUSED, revision="old")),
     ["drain p", "start shop-web-baaaa (new)"]),
    ("none of it is surplus", web(1, 2), (READY, replica("p", Phase.PAUSED),
                                          replica("q", Phase.PAUSED)), []),
    ("kept at zero", web(0, 1), (replica("p", Phase.PAUSED),), []),
    ("resumed but never answers", web(1, 0),
     (replica("p", Phase.PAUSED, warm=False, resumed_at=NOW - 61, since=NOW - 900),),
     ["drain p", "start shop-web-baaaa (new)"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "replicas", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_plans(service: DesiredService, replicas: tuple[Replica, ...], expected: list[str]) -> None:
    assert steps(service, *replicas) == expected


def test_a_start_for_the_pool_is_marked_as_warm() -> None:
    observed = Observed(replicas=(READY,), prepared=frozenset({(KEY, "new")}))
    wanted = Desired(services=(web(1, 1),), projects=frozenset({"shop"}))
    (start,) = plan(wanted, observed, NOW, FixedRandom()).operations
    assert isinstance(start, StartReplica)
    assert start.warm


def test_the_pool_of_a_removed_project_is_drained() -> None:
    observed = Observed(replicas=(replica("p", Phase.PAUSED),))
    wanted = Desired(leaving=frozenset({"shop"}))
    assert str(plan(wanted, observed, NOW, FixedRandom())).startswith("drain p")


def test_a_simulation_fills_the_pool_and_ends() -> None:
    wanted = Desired(services=(web(2, 1),), projects=frozenset({"shop"}))
    lines = str(simulate(wanted, Observed(replicas=()), NOW, FixedRandom())).splitlines()
    assert [line.split()[0] for line in lines] == ["prepare", "start", "start", "start"]


def seen(state: ReplicaState = ReplicaState.RUNNING) -> ObservedReplica:
    return ObservedReplica(
        "p", "1", "shop", "web", "new", state, True, "127.0.0.1", 1, started_at=NOW, created_at=NOW
    )


def test_a_warm_replica_is_paused_then_resumed_then_serves() -> None:
    memory, numbers, good = ReconcileMemory(), FixedRandom(), {"p": ProbeResult(first_good=NOW)}
    start = StartReplica(
        name="p", project="shop", service="web", revision="new", cause="", warm=True
    )
    phases = []

    def look(inputs: Inputs, now: float) -> Replica:
        nonlocal memory
        memory, observed = observe(memory, inputs, now, numbers)
        (found,) = observed.replicas
        phases.append(found.phase)
        return found

    look(Inputs(listed={}, starting={"p": start}), NOW)
    look(Inputs(listed={"p": seen()}), NOW + 1)
    warm = look(Inputs(listed={"p": seen()}, probes=good), NOW + 2)
    assert (warm.answered, warm.warm, endpoints_by_service([warm])) == (True, True, {})
    asleep = Inputs(listed={"p": seen(ReplicaState.PAUSED)})
    paused = look(asleep, NOW + 3)
    assert (paused.warm, endpoints_by_service([paused])) == (True, {})
    memory = mark_resumed(memory, "p", NOW + 4)
    assert look(asleep, NOW + 4).warm is False
    assert endpoints_by_service([look(Inputs(listed={"p": seen()}), NOW + 5)]) == {}
    serving = look(Inputs(listed={"p": seen()}, probes=good), NOW + 6)
    assert KEY in endpoints_by_service([serving])
    assert [str(phase) for phase in phases] == [
        "pending", "probing", "probing", "paused", "paused", "paused", "ready"
    ]  # fmt: skip


def test_a_new_control_process_keeps_the_pool() -> None:
    asleep = Inputs(listed={"p": seen(ReplicaState.PAUSED)})
    memory, observed = observe(ReconcileMemory(), asleep, NOW, FixedRandom())
    (found,) = observed.replicas
    assert (found.phase, found.warm) == (Phase.PAUSED, True)
    memory = mark_drained(memory, DrainReplica(name="p", cause="x"), NOW)
    _, observed = observe(memory, asleep, NOW + 1, FixedRandom())
    assert observed.replicas[0].phase is Phase.DRAINING


def test_a_runtime_without_pause_is_reported() -> None:
    can = Capabilities(True, True, True, True, False, True, True)
    warm = Service.model_validate(
        {"name": "web", "image": "app", "mesh": {"scale": {"max": 2, "warm": 1}}}
    )
    (lack,) = unsupported(warm, can)
    assert "scale.warm is ignored" in str(lack)
    assert unsupported(warm, Capabilities(*(True,) * 7)) == []
