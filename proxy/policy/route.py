"""Route matching: host, then path prefix, then headers; the most specific route wins. Pure.

Owned by `proxy.state.routing_table`. A table is compiled once per snapshot and never changes,
except for a bounded cache of hosts. Hosts are compared without case, port and trailing dot. Paths
are compared as received, without decoding or normalizing: routes match what the origin gets.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

from proxy.policy.balance import pick_weighted
from proxy.policy.path_policy import PathGuards
from proxy.wire.snapshot import Match, Route, Target

HeaderGetter = Callable[[bytes], bytes | None]
"""Returns a field's value by lower-case name; None if absent."""
MAX_CACHED_HOSTS: Final = 1024
"""Hosts in the cache. Clients choose them, so the cache must be bounded."""


class RouteTable:
    """The compiled routes of a snapshot. `guarded` holds the ids of the guarded ones.

    - `has_guards`: whether there is one.
    """

    def __init__(self, routes: Iterable[Route], guarded: Container[str] = ()) -> None:
        self.has_guards = False
        by_host: dict[str, list[Route]] = {}
        for route in routes:
            by_host.setdefault(route.host.lower().rstrip("."), []).append(route)
        self._exact: dict[bytes, _HostRoutes] = {}
        self._suffixes: list[tuple[bytes, _HostRoutes]] = []
        self._any: _HostRoutes | None = None
        for host, group in by_host.items():
            compiled = _HostRoutes(group, guarded)
            self.has_guards = self.has_guards or any(compiled.prefixes.values())
            if host == "*":
                self._any = compiled
            elif host.startswith("*."):
                self._suffixes.append((host[1:].encode(), compiled))
            else:
                self._exact[host.encode()] = compiled
        self._suffixes.sort(key=lambda item: -len(item[0]))
        self._cache: dict[bytes, tuple[_HostRoutes, ...]] = {}
        self._guards: dict[tuple[_HostRoutes, ...], PathGuards | None] = {}

    def match(self, host: bytes, path: bytes, headers: HeaderGetter) -> Route | None:
        """Return the most specific route for a request; None if no route matches.

        `host` is the Host field or the authority, with or without a port. `path` is the target in
        origin form, with or without a query.
        """
        candidates = self._cache.get(host)
        if candidates is None:
            candidates = self._find_candidates(host)
        for routes in candidates:
            route = routes.only or routes.match(path, headers)
            if route is not None:
                return route
        return None

    def only_route(self, host: bytes) -> Route | None:
        """Return the route of all requests to a host; None if it depends on the request.

        `host` as for `match`.
        """
        candidates = self._find_candidates(host)
        return candidates[0].only if candidates else None

    def path_guards(self, host: bytes) -> PathGuards | None:
        """Return the guarded prefixes of the routes that a host can match; None without any.

        `host` as for `match`.
        """
        candidates = self._cache.get(host)
        if candidates is None:
            candidates = self._find_candidates(host)
        if candidates not in self._guards:
            # As many as there are hosts in the routes, not hosts in requests.
            groups: list[dict[bytes, bool]] = []
            for routes in candidates:
                groups.append(routes.prefixes)
                if routes.catches_all:
                    break
            guards = PathGuards(groups)
            self._guards[candidates] = None if guards.is_empty else guards
        return self._guards[candidates]

    def _find_candidates(self, host: bytes) -> tuple["_HostRoutes", ...]:
        """Return the route groups that a host can match, the most specific first."""
        name = normalize_host(host)
        candidates = [self._exact[name]] if name in self._exact else []
        candidates += [routes for suffix, routes in self._suffixes if name.endswith(suffix)]
        if self._any is not None:
            candidates.append(self._any)
        if len(self._cache) >= MAX_CACHED_HOSTS:
            self._cache.clear()
        found = self._cache[host] = tuple(candidates)
        return found


class _HostRoutes:
    """The routes of one host.

    - `only`: the single route of all its requests, if there is one.
    - `catches_all`: whether each request has a route.
    - `prefixes`: whether one of its routes is guarded, by prefix.
    """

    def __init__(self, routes: Sequence[Route], guarded: Container[str]) -> None:
        ordered = sorted(routes, key=lambda route: -len(route.matches))
        self._by_prefix: dict[bytes, tuple[Route, ...]] = {}
        for route in ordered:
            prefix = route.path.encode().rstrip(b"/")
            self._by_prefix[prefix] = (*self._by_prefix.get(prefix, ()), route)
        self._depth = max(prefix.count(b"/") for prefix in self._by_prefix)
        self.catches_all = any(not route.matches for route in self._by_prefix.get(b"", ()))
        self.prefixes = {
            prefix: any(route.id in guarded for route in same)
            for prefix, same in self._by_prefix.items()
        }
        first = self._by_prefix.get(b"", (None,))[0]
        self.only = first if self._depth == 0 and first and not first.matches else None

    def match(self, path: bytes, headers: HeaderGetter) -> Route | None:
        end = path.find(b"?")
        if end < 0:
            end = len(path)
        # Look up every prefix that ends at a segment boundary, up to the depth of the routes.
        found = [self._by_prefix[b""]] if b"" in self._by_prefix else []
        boundary = 0
        for _ in range(self._depth):
            if boundary >= end:
                break
            boundary = path.find(b"/", boundary + 1, end)
            if boundary < 0:
                boundary = end
            routes = self._by_prefix.get(path[:boundary])
            if routes is not None:
                found.append(routes)
        for routes in reversed(found):
            for route in routes:
                if not route.matches or all(is_met(match, headers) for match in route.matches):
                    return route
        return None


def normalize_host(host: bytes) -> bytes:
    """Return a Host's name: lower case, without port and trailing dot; IPv6 keeps its brackets."""
    name = host.lower()
    if name.startswith(b"["):
        return name[: name.find(b"]") + 1] or name
    return name.partition(b":")[0].rstrip(b".")


def is_met(match: Match, headers: HeaderGetter) -> bool:
    """Return whether a header or cookie condition is met."""
    name = match.name.encode()
    is_header = match.source == "header"
    value = headers(name.lower()) if is_header else find_cookie(headers(b"cookie"), name)
    return value is not None and (not match.value or value == match.value.encode())


def find_cookie(field: bytes | None, name: bytes) -> bytes | None:
    """Return a cookie's value from a Cookie field; None if absent."""
    if field is None:
        return None
    for pair in field.split(b";"):
        key, equals, value = pair.strip().partition(b"=")
        if equals and key == name:
            return value.strip(b'"')
    return None


def climbs(path: bytes) -> bool:
    """Return whether the `..` segments of a path lead above its beginning, for a reader that
    decodes `.`, `/` and `\\` and takes `\\` for `/`. A query may follow the path."""
    path = path.partition(b"?")[0].lower().replace(b"%2e", b".")
    if b".." not in path:
        return False
    for separator in (b"\\", b"%5c", b"%2f"):
        path = path.replace(separator, b"/")
    depth = 0
    for segment in path.split(b"/"):
        # Some readers cut parameters (`..;a=b`) off a segment.
        name = segment.partition(b";")[0]
        if name == b"..":
            depth -= 1
        elif name not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False


def choose_target(targets: Sequence[Target], roll: float) -> Target:
    """Choose one of a route's targets (at least one) by weight; `roll` is random in [0, 1)."""
    if len(targets) == 1:
        return targets[0]
    return targets[pick_weighted([target.weight for target in targets], roll)]
