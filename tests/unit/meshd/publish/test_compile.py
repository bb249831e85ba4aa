"""Specs and endpoints → the snapshot."""

from typing import Any

import msgspec
import pytest

from meshd.publish.compile import compile_snapshot, route_conflicts
from meshd.spec.model import Project
from proxy.wire import snapshot as wire
from proxy.wire.codec import Decoder, encode
from proxy.wire.report import Publish

AT = wire.Generation(1, 7)


def project(name: str, **services: dict[str, Any]) -> Project:
    """A project of services with the given `x-mesh` settings."""
    return Project.model_validate(
        {
            "name": name,
            "services": [
                {"name": service, "image": "i", "mesh": mesh} for service, mesh in services.items()
            ],
        }
    )


SHOP = project("shop", orders={"routes": ["/orders", "api.x/o"]}, payments={"allow": ["orders"]})
ENDPOINTS = {
    "shop/orders": (
        wire.Endpoint(id="b", host="10.0.0.2", port=8080, revision="r1"),
        wire.Endpoint(id="a", host="10.0.0.1", port=8080, revision="r1"),
    ),
    "shop/gone": (wire.Endpoint(id="x", host="10.0.0.9", port=8080),),
}


def test_services_routes_and_endpoints() -> None:
    got = compile_snapshot(AT, [SHOP], ENDPOINTS)

    assert got.generation == AT
    assert [service.name for service in got.services] == ["shop/orders", "shop/payments"]
    orders, payments = got.services
    assert [endpoint.id for endpoint in orders.endpoints] == ["a", "b"]
    assert (orders.allow, payments.allow) == (None, ("shop/orders",))
    assert payments.endpoints == ()
    target = (wire.Target(service="shop/orders"),)
    assert got.routes == (
        wire.Route(id="shop/orders#0", targets=target, path="/orders"),
        wire.Route(id="shop/orders#1", targets=target, host="api.x", path="/o"),
    )


def test_every_setting_is_compiled() -> None:
    settings = {
        "balance": {"algorithm": "ring-hash", "hash_by": "header:X-User", "sticky_cookie": "s",
                    "slow_start": "5s", "panic": 0.4},
        "timeouts": {"connect": "1s", "first_byte": "2s", "idle": "3s", "request": "4s",
                     "body": "5s", "keep_alive": "6s"},
        "retries": {"attempts": 1, "budget": 0.1, "reserve": 3, "body_limit": "1k",
                    "status": [503], "hedge_after": "9ms"},
        "limits": {"endpoint_connections": 1, "endpoint_in_flight": 2, "service_in_flight": 3,
                   "pending": 4, "pending_timeout": "5s", "adaptive": True, "body": "1k"},
        "parking": {"requests": 1, "bytes": "2k", "timeout": "3s"},
        "eject": {"consecutive": 1, "base": "2s", "longest": "3s", "share": 0.4,
                  "success_rate": False, "latency_factor": 5},
        "trace": 0.5,
    }  # fmt: skip
    (service,) = compile_snapshot(AT, [project("shop", web=settings)], {}).services

    assert service.balance == wire.Balance(
        algorithm="ring-hash",
        hash_key=wire.HashKey(source="header", name="X-User"),
        sticky_cookie="s",
        slow_start=5.0,
        panic=0.4,
    )
    assert service.timeouts == wire.Timeouts(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert service.retries == wire.Retries(1, 0.1, 3.0, 1024, (503,), 0.009)
    assert service.limits == wire.Limits(1, 2, 3, 4, 5.0, True, 1024)
    assert service.parking == wire.Parking(1, 2048, 3.0, on_refusal=True)
    assert service.ejection == wire.Ejection(1, 2.0, 3.0, 0.4, False, 5.0)
    assert service.trace == 0.5


def test_every_setting_of_a_route_is_compiled() -> None:
    route = {
        "host": "shop.test", "path": "/api", "match": ["header:X-A=1", "cookie:beta"],
        "replace": "/v2/", "redirect": "https://{host}/x", "redirect_status": 302,
        "request_headers": {"set": {"X-B": "b"}, "add": {"X-C": "c"}, "remove": "cookie"},
        "response_headers": {"remove": ["server"]}, "rate_limit": {"rate": 5, "key": "header:X-K"},
        "fault": {"share": 0.1, "delay": "2s", "abort": 418}, "mirror": "copy",
        "background": True,
    }  # fmt: skip
    made = compile_snapshot(AT, [project("shop", web={"routes": [route]}, copy={})], {})
    assert made.routes == (
        wire.Route(
            "shop/web#0",
            (wire.Target("shop/web"),),
            host="shop.test",
            path="/api",
            matches=(wire.Match("header", "X-A", "1"), wire.Match("cookie", "beta")),
            replace="/v2",
            redirect="https://{host}/x",
            redirect_status=302,
            request_headers=wire.HeaderEdit((("X-B", "b"),), (("X-C", "c"),), ("cookie",)),
            response_headers=wire.HeaderEdit(remove=("server",)),
            rate_limit=wire.RateLimit(5.0, 5.0, wire.HashKey("header", "X-K")),
            fault=wire.Fault(0.1, 2.0, 418),
            mirror="shop/copy",
            background=True,
        ),
    )


@pytest.mark.parametrize(
    ("short", "rate", "burst"), [(7, 7.0, 7.0), (0.5, 0.5, 1.0), ("10/s", 10, 10), ("60/m", 1, 60)]
)
def test_the_short_forms_of_a_rate_limit(short: object, rate: float, burst: float) -> None:
    spec = project("shop", web={"routes": [{"path": "/", "rate_limit": short}]})
    (route,) = compile_snapshot(AT, [spec], {}).routes
    assert route.rate_limit == wire.RateLimit(rate, burst)


def test_spec_and_wire_have_the_same_defaults() -> None:
    (service,) = compile_snapshot(AT, [project("shop", web={})], {}).services
    assert service == wire.Service(
        name="shop/web",
        fingerprint=service.fingerprint,
        parking=wire.Parking(on_refusal=True),
    )


def test_the_order_of_the_input_does_not_matter() -> None:
    other = project("bar", web={"routes": ["/w"]}, api={})
    listeners = [wire.Listener("127.0.0.1:8080"), wire.Listener("10.0.0.1:80", "mesh", "shop/a")]
    flipped = {key: tuple(reversed(found)) for key, found in reversed(list(ENDPOINTS.items()))}
    one = compile_snapshot(
        AT, [SHOP, other], ENDPOINTS, listeners=listeners, credentials={"t": "shop/a", "s": "b"}
    )
    two = compile_snapshot(
        AT, [other, SHOP], flipped, listeners=listeners[::-1],
        credentials={"s": "b", "t": "shop/a"},
    )  # fmt: skip
    assert msgspec.msgpack.encode(one) == msgspec.msgpack.encode(two)


@pytest.mark.parametrize(
    ("change", "mesh", "state"),
    [
        ("an endpoint's state", {}, "draining"),
        ("a setting", {"timeouts": {"request": "1s"}}, "ready"),
        ("the callers", {"allow": []}, "ready"),
    ],
)
def test_the_fingerprint_covers_the_content(change: str, mesh: dict[str, Any], state: Any) -> None:
    def print_of(mesh: dict[str, Any], state: Any) -> dict[str, str]:
        endpoints = {"shop/web": [wire.Endpoint("a", "10.0.0.1", 80, state=state)]}
        compiled = compile_snapshot(AT, [project("shop", web=mesh, api={})], endpoints)
        return {service.name: service.fingerprint for service in compiled.services}

    before, after = print_of({}, "ready"), print_of(mesh, state)
    assert before["shop/web"] != after["shop/web"], change
    assert before["shop/api"] == after["shop/api"]
    assert print_of({}, "ready") == before


def test_only_changes_are_sent() -> None:
    old = compile_snapshot(AT, [SHOP], ENDPOINTS)
    new = compile_snapshot(wire.Generation(1, 8), [SHOP], {})
    update = wire.difference(old, new)
    assert [service.name for service in update.services] == ["shop/orders"]
    assert wire.apply(old, update) == new


def test_a_rollout_shifts_traffic_by_weight() -> None:
    split = wire.Split((("r1", 0.95), ("r2", 0.05)))
    got = compile_snapshot(AT, [SHOP], ENDPOINTS, splits={"shop/orders": split})
    found = {service.name: service.split for service in got.services}
    assert found == {**dict.fromkeys(found), "shop/orders": split}
    before = compile_snapshot(AT, [SHOP], ENDPOINTS)
    changed = [s.name for s in wire.difference(before, got).services]
    assert changed == ["shop/orders"]


def test_callers_of_another_project_are_keys() -> None:
    got = compile_snapshot(AT, [project("shop", db={"allow": ["web", "bar/web"]})], {})
    assert got.services[0].allow == ("bar/web", "shop/web")


def test_of_two_equal_service_keys_the_first_counts() -> None:
    adopted = project("shop", orders={"routes": ["/other"]}, extra={})
    got = compile_snapshot(AT, [SHOP, adopted], {})
    assert [service.name for service in got.services] == [
        "shop/extra", "shop/orders", "shop/payments",
    ]  # fmt: skip
    assert [route.path for route in got.routes] == ["/orders", "/o"]


def test_route_conflicts_between_projects() -> None:
    other = project("bar", web={"routes": ["/orders", "/mine"]})
    assert route_conflicts([SHOP, other]) == [
        "route /orders of bar/web is already taken by shop/orders"
    ]
    assert route_conflicts([SHOP, project("bar", web={"routes": ["y.x/orders"]})]) == []


def test_a_snapshot_can_be_encoded_and_decoded() -> None:
    got = compile_snapshot(AT, [SHOP], ENDPOINTS, callers={"10.0.0.7": "shop/orders"})
    (message,) = Decoder().feed(encode(Publish(wire.difference(None, got))))
    assert isinstance(message, Publish)
    assert wire.apply(None, message.update) == got


def test_each_further_port_is_a_service_of_its_own() -> None:
    shop = Project.model_validate(
        {"name": "shop", "services": [
            {"name": "web", "image": "i", "expose": [3000, 9000],
             "mesh": {"tcp": [5432], "allow": ["a"], "limits": {"endpoint_in_flight": 2}}},
        ]}
    )  # fmt: skip
    endpoint = wire.Endpoint(id="w", host="10.0.0.2", port=3000, revision="r1")

    got = compile_snapshot(
        AT, [shop], {"shop/web": (endpoint,)}, virtual={"10.0.0.9:80": "shop/web"}
    )

    assert [(s.name, s.protocol, [(e.id, e.port) for e in s.endpoints]) for s in got.services] == [
        ("shop/web", "http", [("w", 3000)]),
        ("shop/web:5432", "tcp", [("w", 5432)]),
        ("shop/web:9000", "http", [("w", 9000)]),
    ]
    assert {(s.allow, s.limits.endpoint_in_flight) for s in got.services} == {(("shop/a",), 2)}
    assert got.virtual == {"10.0.0.9:80": "shop/web"}
    assert len({s.fingerprint for s in got.services}) == 3


def test_the_main_port_of_a_tcp_service() -> None:
    (db,) = compile_snapshot(AT, [project("shop", db={"port": 5432, "tcp": 5432})], {}).services

    assert (db.name, db.protocol) == ("shop/db", "tcp")


def test_a_port_has_policies_for_itself() -> None:
    mesh = {
        "port": 80,
        "timeouts": {"connect": "1s", "tunnel": "1h"},
        "tcp": [{"port": 5432, "balance": "maglev", "timeouts": {"tunnel": "8h"}}, 6379],
    }
    http, postgres, redis = compile_snapshot(AT, [project("shop", db=mesh)], {}).services
    assert [each.protocol for each in (http, postgres, redis)] == ["http", "tcp", "tcp"]
    algorithms = [each.balance.algorithm for each in (http, postgres, redis)]
    assert algorithms == ["hot-cold", "maglev", "hot-cold"]
    # A section of the port replaces that of the service as a whole.
    timeouts = [(each.timeouts.connect, each.timeouts.tunnel) for each in (http, postgres, redis)]
    assert timeouts == [(1.0, 3600.0), (2.0, 28800.0), (1.0, 3600.0)]
