"""Values of Compose that have a form of their own: commands, signals, health checks, pairs."""

import shlex
import signal
from collections.abc import Callable

from meshd.spec import unsupported
from meshd.spec.cursor import Cursor, Keys
from meshd.spec.model import Healthcheck
from meshd.spec.yaml_source import Node


def pairs(at: Cursor) -> list[tuple[str, Cursor]]:
    """The entries of a mapping, or of a list of `NAME=value`; a bare NAME has no value."""
    if at.node.mapping is not None:
        return list(at.items())
    found = []
    for entry in at.elements():
        name, equals, value = entry.string().partition("=")
        node = Node(value if equals else None, entry.node.where, value)
        found.append((name, at.child(node, name)))
    return found


def named(at: Cursor) -> list[tuple[str, Cursor]]:
    """The entries of a mapping, or of a list of names."""
    if at.node.mapping is not None:
        return list(at.items())
    return [(entry.string(), entry) for entry in at.elements()]


def command(at: Cursor) -> tuple[str, ...]:
    """A list as it is, a string split as a shell would."""
    if at.node.sequence is not None:
        return at.strings()
    text = at.string()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        at.fail(f"{text!r} cannot be split into words ({error}); expected quotes in pairs")


def stop_signal(at: Cursor) -> str:
    text = at.string().upper()
    name = text if text.startswith("SIG") or text.isdecimal() else f"SIG{text}"
    known = signal.Signals.__members__
    if name not in known and not (name.isdecimal() and 1 <= int(name) <= 64):
        at.fail(f"{at.node.text!r} is no signal; expected one like SIGTERM")
    return name


def condition(at: Cursor) -> str:
    word = at.one_of("service_started", "service_healthy", "service_completed_successfully")
    if word == "service_completed_successfully":
        at.fail(
            "meshd keeps services running and waits for no end; expected service_started or "
            "service_healthy"
        )
    return word


def healthcheck(at: Cursor) -> Healthcheck:
    found: dict[str, object] = {}

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    at.keys(
        Keys(
            read={
                "test": put("test", _test),
                "interval": put("interval", Cursor.duration),
                "timeout": put("timeout", Cursor.duration),
                "retries": put("retries", Cursor.integer),
                "start_period": put("start_period", Cursor.duration),
                "disable": put("disable", Cursor.boolean),
            },
            warned=unsupported.HEALTHCHECK_WARNED,
        )
    )
    if found.get("test") == ("NONE",):
        found |= {"test": (), "disable": True}
    return Healthcheck.model_validate(found)


def _test(at: Cursor) -> tuple[str, ...]:
    """The engine's form: `CMD` and words, `CMD-SHELL` and a line, or `NONE`."""
    if at.node.sequence is None:
        return ("CMD-SHELL", at.string())
    words = at.strings()
    first = words[0] if words else ""
    if first not in {"NONE", "CMD", "CMD-SHELL"}:
        at.fail(f"the first word is {first!r}; expected CMD, CMD-SHELL or NONE, or one string")
    if (len(words) == 1) != (first == "NONE"):
        at.fail(
            f"{first} has the wrong number of words; expected NONE alone, or a command after it"
        )
    return words
