"""Describe the changes of a new revision in one line. Pure.

Used by the store, which keeps the text with each release. Values that may be secret, such as
environment variables, are not shown.
"""

from typing import Final

from meshd.spec.fingerprint import REPLICA_FIELDS, dump_replica_fields
from meshd.spec.model import Service

MAX_VALUE_LENGTH: Final = 60
"""Characters of a value that are shown, so that two values fit on a line of a terminal."""
_PLAIN: Final = frozenset({"image", "user", "working_dir", "stop_signal"})


def describe_changes(before: Service | None, after: Service) -> str:
    """Return the fields that define a replica and differ; simple ones with both values."""
    if before is None:
        return "new service"
    found = []
    one, other = dump_replica_fields(before), dump_replica_fields(after)
    for name in sorted(REPLICA_FIELDS - {"plain"}):
        old, new = one.get(name), other.get(name)
        if old == new:
            continue
        if name in _PLAIN:
            found.append(f"{name} {_shorten(old)} → {_shorten(new)}")
        elif isinstance(old, dict) and isinstance(new, dict):
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            found.append(f"{name} {', '.join(keys)}")
        else:
            found.append(name)
    if before.plain != after.plain:
        kinds = ("mesh-managed", "plain")
        found.insert(0, f"{kinds[before.plain]} → {kinds[after.plain]}")
    if before.port != after.port:
        found.append(f"port {before.port} → {after.port}")
    return "; ".join(found) or "nothing"


def _shorten(value: object) -> str:
    text = str(value or "none")
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"
