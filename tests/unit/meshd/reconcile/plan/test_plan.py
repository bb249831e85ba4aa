"""Plans as text: observed replicas, desired services, and the steps that are safe now."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from meshd.model.desired import Desired, DesiredService, desired_replicas
from meshd.model.operation import StartReplica
from meshd.model.replica import ELSEWHERE, REFUSED, UNKNOWN_PATH, Replica, ReplicaFailure
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.model.runtime import ContainerHealth
from meshd.reconcile.observe.memory import BackoffSlot
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan.plan import plan
from meshd.spec.model import Service
from tests.support.fixed_random import FixedRandom
from tests.support.rollouts import rollout

NOW = 1000.0
KEY = "shop/web"


def web(count: int = 2, revision: str = "new", **fields: Any) -> DesiredService:
    spec = Service.model_validate({"name": "web", "image": "app", **fields.pop("spec", {})})
    return DesiredService(project="shop", spec=spec, revision=revision, desired=count, **fields)


def replica(name: str, phase: Phase = Phase.READY, revision: str = "new", **more: Any) -> Replica:
    ready = phase in (Phase.READY, Phase.DRAINING, Phase.STOPPING)
    more.setdefault("ready_since", NOW - 100 if ready else 0.0)
    more.setdefault("since", NOW - 10)
    more.setdefault("drain_since", NOW - 1 if phase is Phase.DRAINING else 0.0)
    return Replica(name=name, project="shop", service="web", revision=revision, phase=phase, **more)


def steps(service: DesiredService, *replicas: Replica, **seen: Any) -> list[str]:
    """The plan's lines, without causes."""
    return [line.partition(":")[0] for line in lines(service, *replicas, **seen)]


def lines(service: DesiredService, *replicas: Replica, **seen: Any) -> Sequence[str]:
    seen.setdefault("prepared", frozenset({(KEY, "new"), (KEY, "old")}))
    observed = Observed(replicas=replicas, **seen)
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    return str(plan(desired, observed, NOW, FixedRandom())).splitlines()


def starts(service: DesiredService, *replicas: Replica) -> list[StartReplica]:
    prepared = frozenset({(KEY, "new"), (KEY, "old")})
    observed = Observed(replicas=replicas, prepared=prepared)
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    found = plan(desired, observed, NOW, FixedRandom()).operations
    return [each for each in found if isinstance(each, StartReplica)]


def test_a_settled_service_has_an_empty_plan() -> None:
    assert steps(web(2), replica("a"), replica("b")) == []


def test_missing_replicas_start_and_each_line_has_its_cause() -> None:
    assert lines(web(2), replica("a")) == ["start shop-web-baaaa (new): 2 desired, 1 running"]


def test_a_starting_replica_is_not_started_twice() -> None:
    assert steps(web(2), replica("a"), replica("b", Phase.PENDING, busy=True, listed=False)) == []


def test_the_image_is_prepared_before_the_first_start() -> None:
    assert steps(web(1), prepared=frozenset()) == ["prepare shop/web@new"]
    assert steps(web(1), prepared=frozenset(), preparing=frozenset({(KEY, "new")})) == []


def test_no_replica_starts_before_the_proxy_listens() -> None:
    assert steps(web(1), may_start=False) == []


def test_replicas_that_are_not_ready_leave_first_then_idle_ones() -> None:
    busy, idle = replica("busy", in_flight=5), replica("idle", in_flight=1)
    assert steps(web(1), busy, idle) == ["drain idle"]
    assert steps(web(2), busy, idle, replica("late", Phase.PROBING)) == ["drain late"]


def test_no_ready_replica_is_drained_in_place_of_a_pending_one() -> None:
    begun = replica("begun", Phase.PENDING, busy=True, listed=False)
    assert steps(web(1), replica("a"), begun) == []
    assert steps(web(1), replica("a"), replica("b"), begun) == ["drain a"]


def test_a_replica_is_stopped_only_when_drained_or_at_its_deadline() -> None:
    leaving = replica("a", Phase.DRAINING)
    drained = replica("a", Phase.DRAINING, drained=True)
    late = replica("a", Phase.DRAINING, drain_since=NOW - 31)
    assert steps(web(0), leaving) == []
    assert steps(web(0), drained) == ["stop a"]
    assert lines(web(0), late) == ["stop a: ; drain deadline of 30 s passed"]
    assert steps(web(0), replica("a", Phase.STOPPING, busy=True)) == []
    assert steps(web(0), replica("a", Phase.STOPPING, since=NOW - 11)) == ["stop a"]


def test_a_failed_replica_is_removed_and_replaced_at_once() -> None:
    died = replica("a", Phase.FAILED, exit_code=1)
    slots = {(KEY, "new"): (BackoffSlot(attempt=1, not_before=NOW, opened=NOW),)}
    assert steps(web(1), died, slots=slots) == ["remove a", "start shop-web-baaaa (new)"]


def test_backoff_and_crash_loops_wait_with_a_reason() -> None:
    slots = {(KEY, "new"): (BackoffSlot(attempt=3, not_before=NOW + 4, opened=NOW),)}
    observed = Observed(replicas=(), slots=slots, prepared=frozenset({(KEY, "new")}))
    made = plan(Desired(services=(web(1),)), observed, NOW, FixedRandom())
    assert not made
    assert made.waiting == ((KEY, "crash loop: 3 failures in a row, next start in 4.0 s"),)


def test_the_backoff_of_one_replica_does_not_delay_another_one() -> None:
    slots = {(KEY, "new"): (BackoffSlot(attempt=3, not_before=NOW + 4, opened=NOW),)}
    assert steps(web(2), slots=slots) == ["start shop-web-baaaa (new)"]


def test_a_completed_replica_counts_towards_the_desired_number() -> None:
    done = replica("a", Phase.COMPLETED, exit_code=0)
    crashed = replica("a", Phase.FAILED, exit_code=1)
    policy = {"restart": {"condition": "on-failure"}}
    assert steps(web(1, spec=policy), done) == []
    assert steps(web(1, spec=policy), crashed) == ["remove a", "start shop-web-baaaa (new)"]
    assert steps(web(1, revision="other", spec=policy), done, prepared=ANY_PREPARED) == [
        "remove a",
        "start shop-web-baaaa (other)",
    ]


ANY_PREPARED = frozenset({(KEY, "new"), (KEY, "other")})
NEVER = {"restart": {"condition": "none"}}


def test_a_failed_replica_that_is_not_restarted_stays_until_the_next_deployment() -> None:
    crashed = replica("a", Phase.FAILED, exit_code=1, ended_at=NOW - 5)
    assert steps(web(1, spec=NEVER), crashed) == ["read the output of a"]
    kept = frozenset({"a"})
    assert steps(web(1, spec=NEVER), crashed, outputs_kept=kept) == []
    again = web(1, spec=NEVER, deployed_at=NOW - 1)
    assert steps(again, crashed) == ["remove a", "start shop-web-baaaa (new)"]


@pytest.mark.parametrize(
    ("attempt", "uptime", "restarted"), [(1, 1.0, True), (2, 1.0, False), (2, 60.0, True)]
)
def test_restarts_are_limited_in_a_series_of_quick_failures(
    attempt: int, uptime: float, restarted: bool
) -> None:
    policy = {"restart": {"condition": "on-failure", "max_attempts": 2}}
    crashed = replica("a", Phase.FAILED, exit_code=1, attempt=attempt, uptime=uptime)
    found = steps(web(1, spec=policy), crashed)
    assert ("start shop-web-baaaa (new)" in found) == restarted


@pytest.mark.parametrize("code", [0, 1])
def test_ended_replicas_are_removed_when_fewer_are_desired(code: int) -> None:
    """Otherwise the project could never go down."""
    phase = Phase.FAILED if code else Phase.COMPLETED
    ended = [replica(name, phase, exit_code=code, created_at=float(i))
             for i, name in enumerate("ab")]  # fmt: skip
    assert steps(web(0, spec=NEVER), *ended) == ["remove a", "remove b"]
    assert steps(web(1, spec=NEVER), *ended, outputs_kept=frozenset("ab")) == ["remove a"]


def test_a_completed_replica_of_the_previous_revision_stays_during_a_rollout() -> None:
    """So that a rollback does not run it again."""
    old = replica("a", Phase.COMPLETED, "old", exit_code=0)
    rolling = web(1, spec=NEVER, rollout=rollout(RolloutState.ROLLING, "old"))
    assert steps(rolling, old) == ["start shop-web-baaaa (new)"]
    back = web(1, "old", spec=NEVER, rollout=rollout(RolloutState.ROLLED_BACK, "old"))
    assert steps(back, old) == []
    done = replica("b", Phase.COMPLETED, exit_code=0)
    assert steps(rolling, old, done) == ["finish shop/web as done"]


def test_a_plain_replica_stops_without_the_workers() -> None:
    leaving = replica("a", Phase.DRAINING, "old", drained=False, plain=True)
    assert steps(web(0, spec={"plain": True}), leaving) == ["stop a"]
    assert steps(web(0), replica("a", Phase.DRAINING, "old", drained=False)) == []


def test_a_plain_replica_stays_a_moment_once_its_service_is_mesh_managed() -> None:
    """Containers that found it directly find the service at its virtual address by then."""

    def leaving(seconds: float, *, drained: bool) -> Replica:
        since = NOW - seconds
        return replica("a", Phase.DRAINING, "old", plain=True, drain_since=since, drained=drained)

    assert steps(web(1), replica("b"), leaving(1.9, drained=True)) == []
    assert steps(web(1), replica("b"), leaving(2, drained=True)) == ["stop a"]
    assert steps(web(1), replica("b"), leaving(2, drained=False)) == [], "workers use it too"


def test_a_plain_service_starts_before_the_proxy_listens() -> None:
    assert steps(web(1, spec={"plain": True}), may_start=False) == ["start shop-web-baaaa (new)"]


@pytest.mark.parametrize(
    ("unhealthy", "cause"),
    [
        (
            replica("a", bad=3, probe="no answer"),
            "drain a: 3 bad probes in a row (no answer)",
        ),
        (
            replica("a", health=ContainerHealth.UNHEALTHY),
            "drain a: its container's health check fails",
        ),
        (
            replica("a", Phase.PROBING, since=NOW - 61, probe="refused"),
            "drain a: not healthy within 60 s (refused)",
        ),
    ],
)
def test_unhealthy_replicas_are_drained_and_replaced_in_the_same_pass(
    unhealthy: Replica, cause: str
) -> None:
    assert lines(web(1), unhealthy) == [cause, "start shop-web-baaaa (new): 1 desired, 0 running"]


def test_a_replica_has_the_start_period_of_its_health_check() -> None:
    spec = {"healthcheck": {"test": ["CMD", "true"], "start_period": 120}}
    service = web(1, spec=spec)
    slow = replica("a", Phase.PROBING, since=NOW - 119, probe="refused")
    assert lines(service, slow) == []
    late = replica("a", Phase.PROBING, since=NOW - 121, probe="refused")
    assert lines(service, late)[0] == "drain a: not healthy within 120 s (refused)"


def test_a_program_without_the_default_path_fails_soon() -> None:
    def first_line(ago: float, probe: str, **spec: Any) -> str:
        seen = replica("a", Phase.PROBING, since=NOW - ago, probe=probe, port=80)
        return next(iter(lines(web(1, spec=spec), seen)), "")

    assert first_line(19, UNKNOWN_PATH) == ""
    assert first_line(21, UNKNOWN_PATH) == f"drain a: not healthy within 20 s ({UNKNOWN_PATH})"
    assert first_line(59, "GET /healthz answered 503") == ""
    given = {"health": {"start_timeout": 50}}
    assert first_line(49, UNKNOWN_PATH, mesh=given) == ""
    check = {"test": ["CMD", "true"], "start_period": 120}
    assert first_line(119, UNKNOWN_PATH, healthcheck=check) == ""
    assert first_line(61, "connection refused") == (
        "drain a: not healthy within 60 s (connection refused; nothing listens on port 80, "
        "x-mesh.port sets another one)"
    )


def test_a_program_that_listens_elsewhere_fails_soon() -> None:
    elsewhere = f"{REFUSED}: nothing listens on port 80; {ELSEWHERE} port 3000"

    def first_line(ago: float, probe: str = elsewhere, **spec: Any) -> str:
        seen = replica("a", Phase.PROBING, since=NOW - ago, probe=probe, port=80)
        return next(iter(lines(web(1, spec=spec), seen)), "")

    assert first_line(29) == ""
    assert first_line(31) == f"drain a: not healthy within 30 s ({elsewhere})"
    nowhere = f"{REFUSED}: nothing listens on port 80, nor on another one"
    assert first_line(59, nowhere) == ""
    assert first_line(61, nowhere) == f"drain a: not healthy within 60 s ({nowhere})"
    assert first_line(49, mesh={"health": {"start_timeout": 50}}) == ""
    short = {"health": {"start_timeout": 5}}
    assert first_line(6, mesh=short) == f"drain a: not healthy within 5 s ({elsewhere})"


def test_if_all_replicas_are_unhealthy_half_are_restarted_at_a_time() -> None:
    unhealthy = [replica(name, bad=9) for name in "abcd"]
    drained = [step for step in steps(web(4), *unhealthy) if step.startswith("drain")]
    assert drained == ["drain a", "drain b"]
    out = [replica(name, Phase.DRAINING) for name in "ab"]
    assert steps(web(4), *unhealthy[2:], *out) == [
        "start shop-web-baaaa (new)",
        "start shop-web-caaaa (new)",
    ]


@pytest.mark.parametrize(
    ("desired", "serving", "not_ready", "hung_first", "drained"),
    [
        (1, "", "a", "a", "a"),
        (4, "cd", "ab", "a", "a"),
        (4, "", "abcd", "abcd", "ab"),
        (4, "ab", "cd", "ab", ""),
    ],
    ids=["the only one", "one of two that are not ready", "all", "those that still serve"],
)
def test_a_hung_replica_is_restarted_also_if_it_was_not_ready(
    desired: int, serving: str, not_ready: str, hung_first: str, drained: str
) -> None:
    group = [
        replica(
            name, unready="503" if name in not_ready else "", bad=3 if name in hung_first else 0
        )
        for name in sorted(serving + not_ready)
    ]
    drains = [step for step in steps(web(desired), *group) if step.startswith("drain")]
    assert drains == [f"drain {name}" for name in drained]


def test_while_the_runtime_does_not_respond_replicas_are_only_drained() -> None:
    unhealthy = replica("a", bad=3)
    assert steps(web(1), unhealthy, available=False) == ["drain a"]


def test_start_first_runs_one_more_and_never_fewer() -> None:
    old = [replica(name, revision="old") for name in "ab"]
    service = web(2, rollout=rollout())
    assert steps(service, *old) == ["start shop-web-baaaa (new)"]
    starting = replica("n", Phase.PROBING)
    assert steps(service, *old, starting) == []
    assert steps(service, *old, replica("n")) == ["drain a"]
    left = replica("a", Phase.DRAINING, revision="old")
    assert steps(service, left, old[1], replica("n")) == ["start shop-web-baaaa (new)"]


def test_stop_first_runs_one_fewer_and_never_more() -> None:
    old = [replica(name, revision="old") for name in "ab"]
    service = web(2, rollout=rollout(), spec={"update": {"order": "stop-first"}})
    assert steps(service, *old) == ["drain a"]
    left = replica("a", Phase.DRAINING, revision="old")
    assert steps(service, left, old[1]) == []
    assert steps(service, old[1]) == ["start shop-web-baaaa (new)"]
    assert steps(service, old[1], replica("n", Phase.PROBING)) == []
    assert steps(service, old[1], replica("n")) == ["drain b"]


DATA: dict[str, Any] = {"volumes": [{"type": "volume", "source": "db", "target": "/data"}]}
STOP_FIRST: dict[str, Any] = {"update": {"order": "stop-first"}}


@pytest.mark.parametrize("spec", [DATA, STOP_FIRST], ids=["data", "stop-first"])
@pytest.mark.parametrize(
    "leaving",
    [
        replica("a", bad=3),
        replica("a", Phase.PROBING, since=NOW - 61),
        replica("a", Phase.DRAINING),
        replica("a", Phase.STOPPING, busy=True),
        replica("a", Phase.DRAINING, revision="old"),
        replica("a", Phase.STOPPING, revision="old", busy=True),
    ],
    ids=["unhealthy", "never healthy", "draining", "stopping", "old draining", "old stopping"],
)
def test_stop_first_starts_a_replica_once_the_one_before_has_ended(
    spec: dict[str, Any], leaving: Replica
) -> None:
    service = web(1, spec=spec, rollout=rollout())
    assert not [step for step in steps(service, leaving) if step.startswith("start")]
    ended = msgspec.structs.replace(leaving, phase=Phase.GONE, busy=False, exit_code=0)
    assert steps(service, ended) == ["remove a", "start shop-web-baaaa (new)"]
    assert steps(service) == ["start shop-web-baaaa (new)"]


def test_a_start_that_waits_for_an_end_says_so() -> None:
    stopping = replica("a", Phase.STOPPING, busy=True)
    seen = Observed(replicas=(stopping,), prepared=frozenset({(KEY, "new")}))
    made = plan(Desired(services=(web(1, spec=DATA),)), seen, NOW, FixedRandom())
    assert made.waiting == ((KEY, "waits until a has ended"),)


def test_a_container_that_may_still_start_keeps_its_place() -> None:
    created = replica("a", Phase.FAILED)
    assert steps(web(1, spec=DATA), created) == ["remove a"]
    assert steps(web(1), created) == ["remove a", "start shop-web-baaaa (new)"]


@pytest.mark.parametrize(
    ("settings", "update", "limit"),
    [
        ({}, {}, 2),
        ({"strategy": "blue-green"}, {}, 2),
        ({"strategy": "canary"}, {}, 2),
        ({"max_surge": 2, "max_unavailable": 0}, {}, 2),
        ({"strategy": "blue-green"}, {"order": "stop-first"}, 2),
        ({}, {"order": "start-first"}, None),
        ({"strategy": "blue-green"}, {"order": "start-first"}, None),
    ],
)
def test_replicas_with_data_are_replaced_one_by_one(
    settings: dict[str, Any], update: dict[str, Any], limit: int | None
) -> None:
    spec = {**DATA, "update": update, "mesh": {"rollout": settings}}
    service = web(2, rollout=rollout(), spec=spec)
    assert service.max_containers == limit
    old = [replica(name, revision="old") for name in "ab"]
    if limit is None:
        assert steps(service, *old)[0] == "start shop-web-baaaa (new)"
        return
    assert steps(service, *old) == ["drain a"]
    assert steps(service, replica("a", Phase.STOPPING, busy=True, revision="old"), old[1]) == []
    assert steps(service, old[1]) == ["start shop-web-baaaa (new)"]


def test_stop_first_without_data_allows_what_the_settings_ask_for() -> None:
    blue_green = {"mesh": {"rollout": {"strategy": "blue-green"}}}
    assert web(2, spec={**STOP_FIRST, **blue_green}).max_containers is None
    surge = {"mesh": {"rollout": {"max_surge": 1}}}
    assert web(2, spec={**STOP_FIRST, **surge}).max_containers is None
    no_surge = {"mesh": {"rollout": {"max_surge": 0, "max_unavailable": 1}}}
    assert web(2, spec={**STOP_FIRST, **no_surge}).max_containers == 2
    assert web(2, spec=STOP_FIRST, warm=1).max_containers == 3


def test_an_old_replica_that_is_not_ready_does_not_block_a_stop_first_rollout() -> None:
    unready = replica("a", revision="old", unready="503")
    service = web(1, spec=DATA, rollout=rollout())
    assert steps(service, unready) == ["drain a"]
    assert steps(service, unready, replica("b", Phase.STOPPING, busy=True, revision="old")) == []


def test_two_desired_replicas_may_share_their_data() -> None:
    assert steps(web(2, spec=DATA), replica("a")) == ["start shop-web-baaaa (new)"]
    scaled_down = replica("b", Phase.STOPPING, busy=True)
    assert steps(web(2, spec=DATA), replica("a"), scaled_down) == []


def test_old_replicas_that_do_not_serve_leave_at_once() -> None:
    service = web(1, rollout=rollout())
    assert steps(service, replica("a", Phase.PROBING, revision="old")) == [
        "drain a",
        "start shop-web-baaaa (new)",
    ]


def test_a_delay_postpones_the_next_step() -> None:
    service = web(2, rollout=rollout(), spec={"update": {"delay": 5, "monitor": 0}})
    fresh, old = replica("n", ready_since=NOW - 3), replica("b", revision="old")
    assert steps(service, fresh, old) == []
    rested = replica("n", ready_since=NOW - 6)
    assert steps(service, rested, old) == ["start shop-web-baaaa (new)"]


def failed(
    text: str = "n exited with code 1", **more: Any
) -> dict[Any, tuple[ReplicaFailure, ...]]:
    return {(KEY, "new"): (ReplicaFailure(at=NOW, replica="n", text=text, **more),)}


def test_a_failed_revision_is_rolled_back_or_halted_with_the_reason() -> None:
    old = replica("a", revision="old")
    service = web(1, rollout=rollout())
    assert lines(service, old, failures=failed()) == [
        "finish shop/web as rolled-back: n exited with code 1"
    ]
    pausing = web(1, rollout=rollout(), spec={"update": {"failure_action": "pause"}})
    assert steps(pausing, old, failures=failed()) == ["finish shop/web as paused"]
    ratio = web(4, rollout=rollout(), spec={"update": {"max_failure_ratio": 0.25}})
    assert "finish" not in "".join(steps(ratio, old, failures=failed()))


def test_an_external_kill_does_not_fail_the_rollout() -> None:
    old = replica("a", revision="old")
    service = web(1, rollout=rollout())
    assert "finish" not in "".join(steps(service, old, failures=failed(external=True)))


def test_repeated_external_kills_eventually_fail_the_rollout() -> None:
    old = replica("a", revision="old")
    service = web(1, rollout=rollout())
    (once,) = failed(external=True).values()
    twice, thrice = ({(KEY, "new"): once * many} for many in (2, 3))
    assert "finish" not in "".join(steps(service, old, failures=twice))
    assert "finish shop/web as rolled-back" in steps(service, old, failures=thrice)


def test_failures_before_the_rollout_do_not_count() -> None:
    old = replica("a", revision="old")
    service = web(1, rollout=rollout(since=NOW + 1))
    assert "finish" not in "".join(steps(service, old, failures=failed()))
    began = web(1, rollout=rollout(since=NOW))
    assert "finish shop/web as rolled-back" in steps(began, old, failures=failed())


def test_without_a_previous_revision_a_failed_replica_is_started_again() -> None:
    service = web(1, rollout=rollout(previous=""))
    assert steps(service, failures=failed()) == ["start shop-web-baaaa (new)"]


def test_a_rollout_is_done_after_the_monitor_time() -> None:
    service = web(1, rollout=rollout())
    assert steps(service, replica("n", ready_since=NOW - 4)) == []
    assert steps(service, replica("n", ready_since=NOW - 6)) == ["finish shop/web as done"]


def test_a_halted_rollout_replaces_no_replica() -> None:
    service = web(2, "old", rollout=rollout(RolloutState.HALTED))
    mixed = replica("a", revision="old"), replica("n")
    assert steps(service, *mixed) == []
    assert steps(service, mixed[1]) == ["start shop-web-baaaa (old)"]


def test_adopted_replicas_are_copied_and_never_stopped() -> None:
    theirs = replica("theirs", managed=False, revision="x")
    copy = replica("copy", revision="x")
    service = web(2, "x", adopted=True, template="theirs")
    assert steps(service, theirs) == ["start shop-web-baaaa as a copy of theirs"]
    assert steps(web(1, "x", adopted=True, template="theirs"), theirs, copy) == ["drain copy"]
    assert steps(web(0, "x", adopted=True, template="theirs"), theirs) == []
    gone = replica("theirs", Phase.FAILED, managed=False, revision="x", exit_code=1)
    assert steps(web(1, "x", adopted=True, template="theirs"), gone, copy) == []


def test_copies_of_a_version_that_others_replaced_are_replaced() -> None:
    theirs = replica("theirs", managed=False, revision="y")
    old = replica("old", revision="x", copied=True)
    service = web(2, "y", adopted=True, template="theirs")
    assert steps(service, theirs, old) == ["start shop-web-baaaa as a copy of theirs"]
    new = replica("new", revision="y", copied=True)
    assert steps(service, theirs, old, new) == ["drain old"]
    # While others replace one container after the other, both versions are wanted.
    other = replica("other", managed=False, revision="x")
    both = web(3, "y", adopted=True, template="theirs")
    assert steps(both, theirs, other, old) == []
    # Without any of theirs the copies are all that serves.
    assert steps(web(1, "y", adopted=True, template="theirs"), old) == []


def test_a_service_that_shrinks_keeps_the_new_version() -> None:
    theirs = replica("theirs", managed=False, revision="y", created_at=NOW - 10)
    old = replica("old", revision="x", copied=True, created_at=NOW - 90)
    new = replica("new", revision="y", copied=True, created_at=NOW - 5)
    service = web(2, "y", adopted=True, template="theirs")
    assert steps(service, theirs, old, new) == ["drain old"]


def test_a_container_that_others_stop_is_replaced_a_moment_later() -> None:
    service = web(2, "x", adopted=True, template="theirs")
    copy = replica("copy", revision="x")
    for since, expected in (
        (NOW - 0.5, []),
        (NOW - 1.5, ["start shop-web-baaaa as a copy of theirs"]),
    ):
        stopping = replica("theirs", Phase.STOPPING, managed=False, revision="x", since=since)
        assert steps(service, stopping, copy) == expected


def test_a_copy_that_others_stopped_is_left_for_them_to_remove() -> None:
    service = web(0, "x", adopted=True, template="theirs")
    for ago, expected in ((5, []), (16, ["remove copy"])):
        ended = replica("copy", Phase.GONE, revision="x", copied=True, since=NOW - ago)
        assert steps(service, ended) == expected


def test_an_adopted_replica_that_answers_again_is_restored() -> None:
    service = web(1, "x", adopted=True, template="theirs")
    unhealthy = replica(
        "theirs",
        Phase.DRAINING,
        revision="x",
        managed=False,
        counted_as_failure=True,
        probe="refused",
        bad=2,
    )
    well = replica(
        "theirs", Phase.DRAINING, revision="x", managed=False, counted_as_failure=True, probe="ok"
    )
    copy = replica("copy", revision="x")
    assert steps(service, unhealthy, copy) == []
    assert steps(service, well, copy) == ["restore theirs"]


def test_the_first_start_waits_for_dependencies() -> None:
    back = DesiredService(project="shop", spec=Service(name="db"), revision="new", desired=1)
    front = web(1, spec={"depends_on": ("db",), "wait_healthy": ("db",)})
    prepared = frozenset({(KEY, "new"), ("shop/db", "new")})
    desired = Desired(services=(front, back), projects=frozenset({"shop"}))

    def waiting(*replicas: Replica) -> str:
        made = plan(desired, Observed(replicas=replicas, prepared=prepared), NOW, FixedRandom())
        return dict(made.waiting).get(KEY, "")

    def database(phase: Phase) -> Replica:
        return Replica(name="d", project="shop", service="db", revision="new", phase=phase)

    assert waiting() == "waits for db, which has no ready replica yet"
    assert waiting(database(Phase.PROBING)) == "waits for db, which has no ready replica yet"
    assert waiting(database(Phase.READY)) == ""
    assert waiting(replica("a")) == ""


def test_replicas_of_a_dropped_service_leave_and_other_projects_are_left_alone() -> None:
    stranger = Replica(name="x", project="other", service="web", revision="r", phase=Phase.READY)
    ours = Replica(name="y", project="shop", service="dropped", revision="r", phase=Phase.READY)
    observed = Observed(replicas=(stranger, ours))
    made = plan(Desired(projects=frozenset({"shop"})), observed, NOW, FixedRandom())
    assert str(made) == "drain y: the spec has no such service any more"


def test_a_project_is_forgotten_once_its_last_replica_is_gone() -> None:
    desired = Desired(services=(web(0),), projects=frozenset({"shop"}), leaving=frozenset({"shop"}))
    assert str(plan(desired, Observed(replicas=(replica("a"),)), NOW, FixedRandom())).startswith(
        "drain a"
    )
    assert str(plan(desired, Observed(replicas=()), NOW, FixedRandom())) == (
        "forget shop: no replica is left"
    )


@pytest.mark.parametrize(
    ("scale", "override", "decided", "count"),
    [
        (None, None, None, 3),
        (None, 7, None, 7),
        ({"min": 2, "max": 5}, None, None, 3),
        ({"min": 4, "max": 5}, None, None, 4),
        ({"min": 2, "max": 5}, None, 9, 5),
        ({"min": 2, "max": 5}, None, 1, 2),
        ({"min": 2, "max": 5}, 8, 3, 8),
        ({"min": 0, "max": 5}, None, 0, 0),
    ],
)
def test_the_count_is_the_override_else_the_decision_else_the_spec(
    scale: dict[str, int] | None, override: int | None, decided: int | None, count: int
) -> None:
    spec = Service.model_validate({"name": "web", "replicas": 3, "mesh": {"scale": scale}})
    assert desired_replicas(spec, override, decided) == count


def test_a_replica_that_others_changed_is_replaced_before_it_leaves() -> None:
    changed = replica(
        "a",
        drift="was changed by something other than meshd: the memory limit is 1 instead of none",
    )
    found = lines(web(2), changed, replica("b"))
    assert len(found) == 1
    assert found[0].endswith("in place of a, which was changed by something other than meshd: "
                            "the memory limit is 1 instead of none")  # fmt: skip
    assert found[0].startswith("start shop-web-")
    third = replica("c")
    assert lines(web(2), changed, replica("b"), third) == [f"drain a: {changed.drift}"]


def test_replicas_that_a_user_restarts_are_replaced_one_after_the_other() -> None:
    a, b = (replica(name, replaced_for="restarted by ann") for name in ("a", "b"))
    (found,) = lines(web(2), a, b)
    assert found.startswith("start shop-web-")
    assert "in place of " in found
    assert found.endswith(": restarted by ann")
    (found,) = lines(web(2), a, b, replica("c"))
    assert found in ("drain a: restarted by ann", "drain b: restarted by ann")
    # A restart of a replica that has just been started does not back off.
    young = replica("a", replaced_for="restarted by ann", created_at=NOW - 1.0, attempt=3)
    assert starts(web(1), young)[0].attempt == 0


def test_replicas_that_something_changes_again_and_again_back_off() -> None:
    drift = "was changed by something other than meshd: the limit of processes is 2048"
    # The first one is replaced at once, however old it is.
    for age, attempt in ((500.0, 0), (2.0, 1)):
        changed = replica("a", drift=drift, created_at=NOW - age)
        (start,) = starts(web(1), changed)
        assert start.attempt == attempt
    # Its successors stay for 1, 2, 4, ... up to 60 s.
    for attempt, wait in ((1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (30, 60.0)):
        young = replica("a", drift=drift, created_at=NOW - wait + 0.1, attempt=attempt)
        assert starts(web(1), young) == []
        due = replica("a", drift=drift, created_at=NOW - wait, attempt=attempt)
        (start,) = starts(web(1), due)
        assert start.attempt == attempt + 1
    # One that ran for a while before it was changed ends the row.
    calm = replica("a", drift=drift, created_at=NOW - 200.0, attempt=7)
    assert starts(web(1), calm)[0].attempt == 0


def test_a_duplicate_leaves_before_the_original() -> None:
    twin = replica("twin", drift="carries the labels of a", created_at=NOW - 500)
    group = (replica("a"), replica("b"), twin)
    assert lines(web(2), *group) == ["drain twin: carries the labels of a"]


def test_a_replica_that_others_paused_is_resumed() -> None:
    paused = replica("a", paused_by_others=True)
    assert lines(web(2), paused, replica("b")) == ["resume a: something other than meshd paused it"]
    assert steps(web(2), replica("a", paused_by_others=True, busy=True), replica("b")) == []
    leaving = replica("c", Phase.DRAINING, paused_by_others=True)
    assert steps(web(2), replica("a"), replica("b"), leaving) == ["resume c"]


@pytest.mark.parametrize(
    "other",
    [
        {"paused_by_others": True},
        {"drift": "changed"},
        {"replaced_for": "restarted by ann"},
        {"bad": 3},
        {"health": ContainerHealth.UNHEALTHY},
        {"warm": True},
        {"revision": "old"},
        {"phase": Phase.FAILED},
        {"phase": Phase.DRAINING, "drained": True},
    ],
    ids=str,
)
def test_a_service_is_settled_only_if_each_replica_is(other: dict[str, Any]) -> None:
    assert steps(web(2), replica("a"), replica("b", **other)) != []


@pytest.mark.parametrize(
    ("cause", "stopped"),
    [
        ("3 bad probes in a row (no answer within 1 s)", True),
        ("3 bad probes in a row (GET /healthz answered 503)", False),
    ],
)
def test_a_hanging_replica_gets_less_time_to_drain(cause: str, stopped: bool) -> None:
    leaving = replica(
        "c", Phase.DRAINING, counted_as_failure=True, cause=cause, drain_since=NOW - 3
    )
    found = lines(web(2), replica("a"), replica("b"), leaving)
    assert found == ([f"stop c: {cause}; drain deadline of 2 s passed"] if stopped else [])


def test_only_its_own_health_check_evicts_a_replica_of_a_plain_service() -> None:
    service = web(1, spec={"plain": True})
    late = replica("late", Phase.PROBING, since=NOW - 1000, health=ContainerHealth.STARTING)
    assert steps(service, late) == []
    sick = msgspec.structs.replace(late, health=ContainerHealth.UNHEALTHY)
    assert steps(service, sick) == ["drain late"]


def test_a_plain_container_that_others_stopped_may_be_started_again_by_them() -> None:
    """`docker restart` stops a container and starts it again."""
    plain = web(1, spec={"plain": True})
    gone = replica("gone", Phase.GONE, ready_since=NOW - 100, drain_since=0.0, since=NOW - 4)
    assert steps(plain, gone) == []
    assert steps(web(1), gone) == ["remove gone", "start shop-web-baaaa (new)"]
    late = msgspec.structs.replace(gone, since=NOW - 6)
    assert steps(plain, late) == ["remove gone", "start shop-web-baaaa (new)"]
