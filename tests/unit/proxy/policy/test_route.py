"""Route matching as a table, and the weighted split over targets."""

from collections import Counter
from random import Random

import pytest

from proxy.policy.route import RouteTable, choose_target, find_cookie, normalize_host
from proxy.wire.snapshot import Match, Route, Target


def route(id: str, host: str = "*", path: str = "/", *matches: Match) -> Route:
    return Route(id=id, targets=(Target(id),), host=host, path=path, matches=matches)


CANARY = Match("header", "X-Canary")
BETA = Match("cookie", "track", "beta")
ROUTES = (
    route("any"),
    route("any-api", "*", "/api"),
    route("shop", "shop.example"),
    route("shop-api", "shop.example", "/api/"),
    route("shop-api-v2", "Shop.Example", "/api/v2"),
    route("shop-canary", "shop.example", "/api", CANARY),
    route("shop-canary-beta", "shop.example", "/api", CANARY, BETA),
    route("wide", "*.example", "/w"),
    route("narrow", "*.eu.example"),
    route("deep", "deep.example", "/a/b/c/d"),
)


@pytest.mark.parametrize(
    ("host", "path", "headers", "found"),
    [
        (b"other", b"/", {}, "any"),
        (b"other", b"/x/y?z=/api", {}, "any"),
        (b"other", b"/api", {}, "any-api"),
        (b"other", b"/api?x", {}, "any-api"),
        (b"other", b"/api/", {}, "any-api"),
        (b"other", b"/apix", {}, "any"),
        (b"other", b"/API", {}, "any"),
        (b"other", b"//api", {}, "any"),
        (b"other", b"/%61pi", {}, "any"),
        (b"other", b"*", {}, "any"),
        (b"", b"/", {}, "any"),
        (b"shop.example", b"/", {}, "shop"),
        (b"SHOP.example:8080", b"/", {}, "shop"),
        (b"shop.example.", b"/", {}, "shop"),
        (b"shop.example", b"/api/v1", {}, "shop-api"),
        (b"shop.example", b"/api/v2/x", {}, "shop-api-v2"),
        (b"shop.example", b"/api/v22", {}, "shop-api"),
        (b"shop.example", b"/api/v1", {b"x-canary": b"1"}, "shop-canary"),
        (b"shop.example", b"/api/v1", {b"x-canary": b""}, "shop-canary"),
        (b"shop.example", b"/api/v2", {b"x-canary": b"1"}, "shop-api-v2"),
        (
            b"shop.example",
            b"/api",
            {b"x-canary": b"1", b"cookie": b"a=b; track=beta"},
            "shop-canary-beta",
        ),
        (b"shop.example", b"/api", {b"x-canary": b"1", b"cookie": b"track=beta2"}, "shop-canary"),
        (b"a.example", b"/w/1", {}, "wide"),
        (b"a.example", b"/api", {}, "any-api"),
        (b"b.a.example", b"/w", {}, "wide"),
        (b"a.eu.example", b"/w", {}, "narrow"),
        (b"example", b"/w", {}, "any"),
        (b"deep.example", b"/a/b/c/d/e", {}, "deep"),
        (b"deep.example", b"/a/b/c", {}, "any"),
        (b"deep.example", b"/" * 5000, {}, "any"),
    ],
)
def test_most_specific_wins(
    host: bytes, path: bytes, headers: dict[bytes, bytes], found: str
) -> None:
    table = RouteTable(ROUTES)
    for _ in range(2):  # the second time from memory
        matched = table.match(host, path, headers.get)
        assert matched is not None
        assert matched.id == found


def test_order_decides_between_equals() -> None:
    table = RouteTable([route("first"), route("second")])
    matched = table.match(b"x", b"/", {}.get)
    assert matched is not None
    assert matched.id == "first"


def test_nothing_matches() -> None:
    assert RouteTable([]).match(b"x", b"/", {}.get) is None
    assert RouteTable([route("a", "a.b")]).match(b"x", b"/", {}.get) is None
    assert RouteTable([route("a", "*", "/a")]).match(b"x", b"/b", {}.get) is None
    assert RouteTable([route("a", "*", "/", CANARY)]).match(b"x", b"/", {}.get) is None


def test_memory_of_hosts_is_bounded() -> None:
    table = RouteTable(ROUTES)
    for number in range(5000):
        table.match(b"host%d" % number, b"/", {}.get)
    assert len(table._cache) <= 1024


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"A.b:80", b"a.b"),
        (b"[::1]:80", b"[::1]"),
        (b"[::1]", b"[::1]"),
        (b"a.", b"a"),
        (b"", b""),
    ],
)
def test_plain_host(host: bytes, name: bytes) -> None:
    assert normalize_host(host) == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"a=1; b=2", b"2"),
        (b'b="x"', b"x"),
        (b"bb=1;  b=3", b"3"),
        (b"b", None),
        (b"", None),
        (None, None),
    ],
)
def test_cookie(field: bytes | None, value: bytes | None) -> None:
    assert find_cookie(field, b"b") == value


def test_split_follows_the_weights() -> None:
    targets = (Target("a", weight=9.0), Target("b", weight=1.0), Target("off", weight=0.0))
    random = Random(2)
    counts = Counter(choose_target(targets, random.random()).service for _ in range(10_000))
    assert counts["off"] == 0
    assert abs(counts["b"] - 1000) < 100
    assert choose_target(targets[:1], 0.99).service == "a"
