"""Read Compose values with their own syntax: commands, signals, health checks, NAME=value lists.

Called by the other readers, mainly `meshd.spec.reader.service`.
"""

import shlex
from collections.abc import Callable
from typing import Final

from meshd.spec.model import Healthcheck, Logging, Ulimit
from meshd.spec.signals import parse_signal
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.yaml_tree import SourceNode

MAX_ULIMIT: Final = 2**62
"""Half the largest signed 64-bit integer, which the engine uses for limits."""


def read_pairs(at: Cursor) -> list[tuple[str, Cursor]]:
    """Read a mapping, or a list of `NAME=value`; a bare NAME has no value."""
    if at.node.mapping is not None:
        return list(at.items())
    found = []
    for entry in at.elements():
        name, equals, value = entry.read_string().partition("=")
        node = SourceNode(value if equals else None, entry.node.location, value)
        found.append((name, at.child(node, name)))
    return found


def read_strings_by_name(at: Cursor) -> dict[str, str]:
    """Read strings by name, in either form of `read_pairs`; a name without a value has an empty
    one."""
    found: dict[str, str] = {}
    for name, value in read_pairs(at):
        text = "" if value.node.value is None else value.attempt(Cursor.read_string)
        if text is not None:
            found[name] = text
    return found


def read_hosts(at: Cursor) -> dict[str, str]:
    """Read `extra_hosts`: addresses by name, from a mapping or a list of `NAME:ADDRESS`. Several
    addresses of a name are separated by commas."""
    found: dict[str, list[str]] = {}
    if at.node.mapping is not None:
        for name, value in at.items():
            found[name] = [_strip_brackets(each) for each in value.read_string_or_strings()]
    else:
        for entry in at.elements():
            text = entry.read_string()
            name, _, addresses = text.partition("=" if "=" in text else ":")
            if not name or not addresses:
                entry.fail(f"{text!r} is not valid; expected NAME:ADDRESS")
            found.setdefault(name, []).extend(map(_strip_brackets, addresses.split(",")))
    return {name: ",".join(dict.fromkeys(addresses)) for name, addresses in found.items()}


def _strip_brackets(address: str) -> str:
    """Return an IPv6 address without the brackets of `[::1]`."""
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def read_external(at: Cursor) -> dict[str, object]:
    """Read `external`: a boolean, or the older form with a `name`."""
    if at.node.mapping is None:
        return {"external": at.read_boolean()}
    found: dict[str, object] = {"external": True}
    at.read_keys(KeyTable(read={"name": lambda c: found.update(engine_name=c.read_string())}))
    return found


def read_ulimits(at: Cursor) -> dict[str, Ulimit]:
    """Read `ulimits`: a number, or `soft` and `hard`, by name; -1 means no limit."""
    return {name: found for name, value in at.items() if (found := value.attempt(_read_ulimit))}


def _read_ulimit(at: Cursor) -> Ulimit:
    found: dict[str, int] = {}
    if at.node.mapping is None:
        found["soft"] = found["hard"] = at.read_integer(low=-1, high=MAX_ULIMIT)
        return Ulimit.model_validate(found)
    at.read_keys(
        KeyTable(
            read={
                "soft": lambda c: found.update(soft=c.read_integer(low=-1, high=MAX_ULIMIT)),
                "hard": lambda c: found.update(hard=c.read_integer(low=-1, high=MAX_ULIMIT)),
            }
        )
    )
    for key in ("soft", "hard"):
        if key not in (at.node.mapping or {}):
            at.fail(f"{key} is missing; expected soft and hard, or one number for both")
    return Ulimit.model_validate({"soft": 0, "hard": 0, **found})


def read_logging(at: Cursor) -> Logging:
    """Read `logging`: a driver and its options."""
    found: dict[str, object] = {}
    at.read_keys(
        KeyTable(
            read={
                "driver": lambda c: found.update(driver=c.read_string()),
                "options": lambda c: found.update(options=read_strings_by_name(c)),
            }
        )
    )
    return Logging.model_validate(found)


def read_names(at: Cursor) -> list[tuple[str, Cursor]]:
    """Read a mapping, or a list of names."""
    if at.node.mapping is not None:
        return list(at.items())
    return [(entry.read_string(), entry) for entry in at.elements()]


def read_command(at: Cursor) -> tuple[str, ...]:
    """Read a command: a list is kept, and a string is split into words as a shell does."""
    if at.node.sequence is not None:
        return at.read_strings()
    text = at.read_string()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        at.fail(f"{text!r} cannot be split into words ({error}); expected matching quotes")


def read_stop_signal(at: Cursor) -> str:
    """Read a signal, as a number or a name with or without SIG."""
    text = at.read_string().upper()
    name = text if text.startswith("SIG") or text.isdecimal() else f"SIG{text}"
    if parse_signal(name) is None:
        at.fail(f"{at.node.text!r} is not a valid signal; expected e.g. SIGTERM or SIGRTMIN+3")
    return name


def read_healthcheck(at: Cursor) -> Healthcheck:
    """Read `healthcheck` of a service; a test of `NONE` disables it."""
    found: dict[str, object] = {}
    at.read_keys(healthcheck_keys(found))
    if found.get("test") == ("NONE",):
        found |= {"test": (), "disable": True}
    if not found.get("disable"):
        names = ("interval", "timeout", "retries", "start_period")
        found["inherited"] = tuple(name for name in names if name not in found)
    return Healthcheck.model_validate(found)


def healthcheck_keys(found: dict[str, object]) -> KeyTable:
    """Return the keys of `healthcheck`; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    return KeyTable(
        read={
            "test": put("test", _read_test),
            "interval": put("interval", Cursor.read_duration),
            "timeout": put("timeout", Cursor.read_duration),
            "retries": put("retries", Cursor.read_integer),
            "start_period": put("start_period", Cursor.read_duration),
            "start_interval": put("start_interval", Cursor.read_duration),
            "disable": put("disable", Cursor.read_boolean),
        }
    )


def _read_test(at: Cursor) -> tuple[str, ...]:
    """Return the engine's form: `CMD` and words, `CMD-SHELL` and a line, or `NONE`."""
    if at.node.sequence is None:
        return ("CMD-SHELL", at.read_string())
    words = at.read_strings()
    first = words[0] if words else ""
    if first not in {"NONE", "CMD", "CMD-SHELL"}:
        at.fail(f"the first word is {first!r}; expected CMD, CMD-SHELL, NONE or a single string")
    if (len(words) == 1) != (first == "NONE"):
        at.fail(
            f"{first} has the wrong number of words; expected NONE alone, or a command after it"
        )
    return words
