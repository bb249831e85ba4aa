"""Which route a request takes: host, then path prefix, then headers, most specific first.

A table is compiled once a snapshot and never changes, but for a bounded memory of hosts seen.
Hosts are compared without case, port and trailing dot. Paths are compared as the bytes that
came, without decoding or tidying: what is matched is what the origin gets to see.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxy.policy.balance import pick_weighted
from proxy.wire.snapshot import Match, Route, Target

HeaderGetter = Callable[[bytes], bytes | None]
MAX_CACHED_HOSTS: Final = 1024


class RouteTable:
    """The compiled routes of a snapshot."""

    def __init__(self, routes: Iterable[Route]) -> None:
        by_host: dict[str, list[Route]] = {}
        for route in routes:
            by_host.setdefault(route.host.lower().rstrip("."), []).append(route)
        self._exact: dict[bytes, _Paths] = {}
        self._suffixes: list[tuple[bytes, _Paths]] = []
        self._any: _Paths | None = None
        for host, group in by_host.items():
            paths = _Paths(group)
            if host == "*":
                self._any = paths
            elif host.startswith("*."):
                self._suffixes.append((host[1:].encode(), paths))
            else:
                self._exact[host.encode()] = paths
        self._suffixes.sort(key=lambda item: -len(item[0]))
        self._remembered: dict[bytes, tuple[_Paths, ...]] = {}

    def match(self, host: bytes, path: bytes, headers: HeaderGetter) -> Route | None:
        """The most specific route for a request, None when there is none.

        `host` is the Host field or the authority, with or without a port; `path` the target
        in origin form, with or without a query; `headers` gives a field's value by its
        lower-case name.
        """
        groups = self._remembered.get(host)
        if groups is None:
            groups = self._groups(host)
        for paths in groups:
            route = paths.only or paths.match(path, headers)
            if route is not None:
                return route
        return None

    def only_route(self, host: bytes) -> Route | None:
        """The route of all requests for a host, whatever else they are; None where that
        depends. `host` as for `match`."""
        groups = self._groups(host)
        return groups[0].only if groups else None

    def _groups(self, host: bytes) -> tuple["_Paths", ...]:
        name = normalize_host(host)
        groups = [self._exact[name]] if name in self._exact else []
        groups += [paths for suffix, paths in self._suffixes if name.endswith(suffix)]
        if self._any is not None:
            groups.append(self._any)
        if len(self._remembered) >= MAX_CACHED_HOSTS:
            self._remembered.clear()
        found = self._remembered[host] = tuple(groups)
        return found


class _Paths:
    """The routes of one host. `only` is set when there is nothing to match."""

    def __init__(self, routes: Sequence[Route]) -> None:
        ordered = sorted(routes, key=lambda route: -len(route.matches))
        self._by_prefix: dict[bytes, tuple[Route, ...]] = {}
        for route in ordered:
            prefix = route.path.encode().rstrip(b"/")
            self._by_prefix[prefix] = (*self._by_prefix.get(prefix, ()), route)
        self._depth = max(prefix.count(b"/") for prefix in self._by_prefix)
        first = self._by_prefix.get(b"", (None,))[0]
        self.only = first if self._depth == 0 and first and not first.matches else None

    def match(self, path: bytes, headers: HeaderGetter) -> Route | None:
        end = path.find(b"?")
        if end < 0:
            end = len(path)
        # Every prefix that ends at a segment boundary, no deeper than the deepest route.
        found = [self._by_prefix[b""]] if b"" in self._by_prefix else []
        cut = 0
        for _ in range(self._depth):
            if cut >= end:
                break
            cut = path.find(b"/", cut + 1, end)
            if cut < 0:
                cut = end
            routes = self._by_prefix.get(path[:cut])
            if routes is not None:
                found.append(routes)
        for routes in reversed(found):
            for route in routes:
                if not route.matches or all(is_met(match, headers) for match in route.matches):
                    return route
        return None


def normalize_host(host: bytes) -> bytes:
    """A Host field's name: lower case, without port and trailing dot; IPv6 keeps brackets."""
    name = host.lower()
    if name.startswith(b"["):
        return name[: name.find(b"]") + 1] or name
    return name.partition(b":")[0].rstrip(b".")


def is_met(match: Match, headers: HeaderGetter) -> bool:
    """Whether a header or cookie condition is met."""
    name = match.name.encode()
    is_header = match.source == "header"
    value = headers(name.lower()) if is_header else find_cookie(headers(b"cookie"), name)
    return value is not None and (not match.value or value == match.value.encode())


def find_cookie(field: bytes | None, name: bytes) -> bytes | None:
    """A cookie's value in a Cookie field; None when it is not there."""
    if field is None:
        return None
    for pair in field.split(b";"):
        key, equals, value = pair.strip().partition(b"=")
        if equals and key == name:
            return value.strip(b'"')
    return None


def choose_target(targets: Sequence[Target], roll: float) -> Target:
    """One of a route's targets by weight; `roll` is in [0, 1). A route has at least one."""
    if len(targets) == 1:
        return targets[0]
    return targets[pick_weighted([target.weight for target in targets], roll)]
