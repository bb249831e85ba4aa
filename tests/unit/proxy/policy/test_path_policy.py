"""Paths with several readings: which of them are refused next to a guarded route."""

import time

import pytest

from proxy.policy.path_policy import MAX_READINGS, PathGuards, TooManyReadings, readings

GUARDS = PathGuards([{b"": False, b"/admin": True, b"/admin/public": False, b"/shop": False}])


@pytest.mark.parametrize(
    "path",
    [
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/../admin?q=1",
        "/../admin/",
        "/%61dmin",
        "/%2561dmin",
        "/%41dmin",
        "/ADMIN/x",
        "/admin;a=b",
        "/admin;a=b/x",
        "/;x/admin",
        "/\\admin",
        "/x\\..\\admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/x/..;/admin",
        "/x/..%5cadmin",
        "/admin%2F..",
        "/admin%2fx",
        "/%2fadmin",
        "/admin%00",
        "/admin%00.png",
        "/admin%3fx",
        "/admin%23x",
        "/admin.",
        "/admin%20/x",
        "//evil.example/admin",
        "/x//../admin",
        "/admin/../shop",
        "/admin/public/../secret",
        "/shop/%2e%2e/admin/x",
    ],
)
def test_a_path_around_a_guard_is_ambiguous(path: str) -> None:
    assert GUARDS.is_ambiguous(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/admin",
        "/admin/x/y?next=//admin&b=/../x",
        "/administrator",
        "/Shop/Items/%C3%A9t%C3%A9;v=1?x=%2fadmin",
        "/shop//items/./a/../b",
        "/shop/admin/../x",
        "/img/https%3A%2F%2Fcdn.example%2Fa.png",
        "/admin/public/a//b",
        "/.well-known/acme",
        "/a%20b/",
        "*",
    ],
)
def test_a_path_with_one_outcome_is_not_ambiguous(path: str) -> None:
    assert not GUARDS.is_ambiguous(path.encode())


def test_which_routes_need_protection() -> None:
    assert [GUARDS.protect(p) for p in (b"", b"/shop", b"/admin/public")] == [True] * 3
    assert not GUARDS.protect(b"/admin")
    nested = PathGuards([{b"/a": True, b"/a/b": True}])
    assert (nested.protect(b"/a"), nested.protect(b"/a/b")) == (True, False)
    assert PathGuards([{b"": False}]).is_empty


def test_guards_of_a_less_specific_host_count() -> None:
    guards = PathGuards([{b"/admin": True}, {b"": False}])
    assert guards.is_ambiguous(b"//admin")
    assert not guards.is_ambiguous(b"/x//y")


def test_routes_that_are_not_in_their_simplest_form() -> None:
    guards = PathGuards([{b"": False, b"/Caf%C3%A9": True}])
    assert not guards.is_ambiguous(b"/Caf%C3%A9/menu")
    assert guards.is_ambiguous("/café".encode())
    assert guards.is_ambiguous(b"/caf%c3%a9")
    both = PathGuards([{b"": False, b"/Admin": True, b"/admin": False}])
    assert not both.is_ambiguous(b"/admin/x")


def test_hostile_paths_are_refused_in_little_time() -> None:
    with pytest.raises(TooManyReadings):
        readings(b"/%25%36%31;a\\b//./c/../%2e%2e/;x/..\\D%3f.%5c/%2525" * 20)
    assert len(readings(b"/A%2fb;c")) < MAX_READINGS
    for piece in (b"/%2e%2e;/\\A", b"/a/..", b"/..;a//", b"%252e/", b"/A.", b";", b"\\."):
        began = time.process_time()
        GUARDS.is_ambiguous((piece * 16384)[:16384])
        assert time.process_time() - began < 0.1
