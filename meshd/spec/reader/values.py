"""Values of Compose that have a form of their own: commands, signals, health checks, pairs."""

import re
import shlex
import signal
from collections.abc import Callable

from meshd.spec.model import Healthcheck, Logging, Ulimit
from meshd.spec.reader import unsupported_keys
from meshd.spec.source.cursor import Cursor, Keys
from meshd.spec.source.yaml_tree import SourceNode


def pairs(at: Cursor) -> list[tuple[str, Cursor]]:
    """The entries of a mapping, or of a list of `NAME=value`; a bare NAME has no value."""
    if at.node.mapping is not None:
        return list(at.items())
    found = []
    for entry in at.elements():
        name, equals, value = entry.string().partition("=")
        node = SourceNode(value if equals else None, entry.node.where, value)
        found.append((name, at.child(node, name)))
    return found


def texts(at: Cursor) -> dict[str, str]:
    """Names with text."""
    return {
        name: text
        for name, value in pairs(at)
        if (text := value.attempt(Cursor.string)) is not None
    }


def hosts(at: Cursor) -> dict[str, str]:
    """`extra_hosts`: names with addresses, as a mapping or a list of `NAME:ADDRESS`."""
    if at.node.mapping is not None:
        return texts(at)
    found = {}
    for entry in at.elements():
        name, *address = re.split("[:=]", entry.string(), maxsplit=1)
        if not name or not any(address):
            entry.fail(f"{entry.node.text!r} is no entry; expected NAME:ADDRESS")
        found[name] = address[0]
    return found


def ulimits(at: Cursor) -> dict[str, Ulimit]:
    """Names with one number, or with `soft` and `hard`; -1 means no limit."""
    return {name: found for name, value in at.items() if (found := value.attempt(_ulimit))}


def _ulimit(at: Cursor) -> Ulimit:
    found: dict[str, int] = {}
    if at.node.mapping is None:
        found["soft"] = found["hard"] = at.integer(low=-1, high=2**62)
        return Ulimit.model_validate(found)
    at.keys(
        Keys(
            read={
                "soft": lambda c: found.update(soft=c.integer(low=-1, high=2**62)),
                "hard": lambda c: found.update(hard=c.integer(low=-1, high=2**62)),
            }
        )
    )
    for key in ("soft", "hard"):
        if key not in (at.node.mapping or {}):
            at.fail(f"{key} is missing; expected soft and hard, or one number for both")
    return Ulimit.model_validate({"soft": 0, "hard": 0, **found})


def logging(at: Cursor) -> Logging:
    """`logging`: a driver and its options."""
    found: dict[str, object] = {}
    at.keys(
        Keys(
            read={
                "driver": lambda c: found.update(driver=c.string()),
                "options": lambda c: found.update(options=texts(c)),
            }
        )
    )
    return Logging.model_validate(found)


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
            warned=unsupported_keys.HEALTHCHECK_WARNED,
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
