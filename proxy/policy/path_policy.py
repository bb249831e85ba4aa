"""Paths that servers read in different ways: find those that would go around a guarded route. Pure.

Owned by `proxy.policy.route`, asked by `proxy.request.resolve`. Routes are matched against the path
as received. An origin may decode it, remove dot segments, merge slashes, take `\\` for `/`, cut
parameters off, or ignore case. Each combination is a reading. A path is ambiguous if one reading
leads to a guarded route and another one does not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

_UNUSUAL: Final = re.compile(rb"[%;\\A-Z]|//|/\.|[. ](?:/|$)")
"""What a path with more than one reading contains."""
_STRANGE: Final = re.compile(rb"[%;\\]|//|/\.|[. ](?:/|$)")
"""The same without capital letters, which many paths have."""
_SLASHES: Final = re.compile(rb"//+")
_HOST: Final = re.compile(rb"^//[^/]+(?:/|$)")
_PARAMETERS: Final = re.compile(rb";[^/\\]*")
_ENDS: Final = re.compile(rb"[?#\0]")
_SEGMENT_ENDS: Final = re.compile(rb"(?<=[^/. ])[. ]+(?=/|$)")
"""Dots and spaces at the end of a name, which Windows ignores."""
MAX_READINGS: Final = 48
"""A path with more readings is refused. Addresses in real use have one to eight."""
MAX_DOT_SEGMENTS: Final = 256
"""Segments of a path with dot segments; more are refused, because each reading takes time."""


PrefixIndex = dict[bytes, tuple[bytes | None]]
"""By prefix: the guarded prefix, which is itself or one of which it is a reading; or None."""


class TooManyReadings(Exception):
    """A path has more readings than any honest one."""


def readings(path: bytes) -> set[bytes]:
    """Return the paths that servers may read in `path`, which is among them; in lower case where
    that differs. Raises TooManyReadings."""
    found = {path}
    # Some chains of servers decode twice.
    for _ in range(2):
        _widen(found, {_decode(each) for each in found})
    _widen(found, {_ENDS.split(each, 1)[0] for each in found})
    _widen(found, {_PARAMETERS.sub(b"", each) for each in found})
    _widen(found, {each.replace(b"\\", b"/") for each in found})
    # In a URL without a scheme, `//` begins a host name.
    _widen(found, {_HOST.sub(b"/", each, 1) for each in found})
    _widen(found, {_SLASHES.sub(b"/", each) for each in found})
    _widen(found, {_remove_dot_segments(each) for each in found})
    _widen(found, {_SEGMENT_ENDS.sub(b"", each) for each in found})
    _widen(found, {each.lower() for each in found})
    return found


def _widen(found: set[bytes], more: set[bytes]) -> None:
    found |= more
    if len(found) > MAX_READINGS:
        raise TooManyReadings


def _decode(path: bytes) -> bytes:
    return unquote_to_bytes(path) if b"%" in path else path


def _remove_dot_segments(path: bytes) -> bytes:
    """Return the path without `.` and `..` segments (RFC 3986, section 5.2.4)."""
    if b"/." not in path:
        return path
    segments = path.split(b"/")
    if len(segments) > MAX_DOT_SEGMENTS:
        raise TooManyReadings
    kept: list[bytes] = []
    for segment in segments[1:]:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


class PathGuards:
    """The guarded prefixes of the routes that a host can match.

    `groups` are these routes in the order in which they are tried: for each prefix without a slash
    at its end, whether a route with it is guarded.
    """

    def __init__(self, groups: Sequence[Mapping[bytes, bool]]) -> None:
        self._exact = [_index(group, exact=True) for group in groups]
        self._read = [_index(group, exact=False) for group in groups]
        self._depth = max(
            (prefix.count(b"/") for group in self._read for prefix in group), default=0
        )
        names = [prefix for group in groups for prefix in group]
        self._always = any(name.lower() != name for name in names)
        guarded = [prefix for group in groups for prefix, is_guarded in group.items() if is_guarded]
        self._protected = {
            name
            for name in names
            if any(other != name and other.startswith(name + b"/") for other in guarded)
            or not any(group.get(name, False) for group in groups)
        }
        self.is_empty = not guarded

    def protect(self, prefix: bytes) -> bool:
        """Return whether a request that matched the route with `prefix` may have gone around a
        guard: the route has none itself, or a more specific one has another."""
        return prefix in self._protected

    def is_ambiguous(self, path: bytes) -> bool:
        """Return whether one reading of a path is under a guarded route and another one is not. A
        query may follow the path."""
        path = path.partition(b"?")[0]
        if not self._always and _UNUSUAL.search(path) is None:
            return False
        if _STRANGE.search(path) is None:
            return self._find_guard(self._read, path.lower()) != self._find_guard(self._exact, path)
        try:
            found = readings(path)
        except TooManyReadings:
            return True
        guard = self._find_guard(self._exact, path)
        return any(self._find_guard(self._read, each) != guard for each in found)

    def _find_guard(self, groups: list[PrefixIndex], path: bytes) -> bytes | None:
        """Return the guarded prefix of the route that a path leads to; None if it is not
        guarded."""
        for group in groups:
            found = group.get(b"")
            boundary = 0
            for _ in range(self._depth):
                if boundary >= len(path):
                    break
                boundary = path.find(b"/", boundary + 1)
                if boundary < 0:
                    boundary = len(path)
                found = group.get(path[:boundary], found)
            if found is not None:
                return found[0]
        return None


def _index(group: Mapping[bytes, bool], *, exact: bool) -> PrefixIndex:
    """Return the index of a group, unless `exact` also by every other reading of each prefix. A
    prefix itself counts before the readings of others."""
    found: PrefixIndex = {}
    for prefix, is_guarded in group.items():
        found[prefix] = (prefix if is_guarded else None,)
    for prefix in () if exact else group:
        try:
            for reading in readings(prefix):
                found.setdefault(reading.rstrip(b"/"), found[prefix])
        except TooManyReadings:
            continue
    return found
