"""Replace variables in a string, by the rules of the Compose Specification. Pure.

Used by `meshd.spec.source.substitution` for Compose files and by `meshd.spec.source.env_file`.

- `$VAR`, `${VAR}`: the value of the variable
- `${VAR:-default}`, `${VAR-default}`: the default if the variable is unset or empty, or unset
- `${VAR:?text}`, `${VAR?text}`: an error with this text if unset or empty, or unset
- `${VAR:+text}`, `${VAR+text}`: the text if the variable is set and not empty, or set
- `$$`: a dollar sign; a `$` that starts no variable stays as it is

Defaults and texts may contain variables. They end at the brace that balances the first one.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":?[-?+]")
_BRACE: Final = re.compile(r"[{}]")


class InterpolationError(ValueError):
    """A variable is malformed, or required and not set; the message names it."""


def interpolate(text: str, environment: Mapping[str, str], unset: Callable[[str], None]) -> str:
    """Return `text` with its variables replaced.

    A variable that is not set and has no default becomes empty, as in Compose; `unset` is called
    with its name. Raises InterpolationError.
    """
    if "$" not in text:
        return text
    out: list[str] = []
    at = 0
    while (found := text.find("$", at)) >= 0:
        out.append(text[at:found])
        following = text[found + 1 : found + 2]
        if following == "$":
            out.append("$")
            at = found + 2
        elif following == "{":
            end = _find_closing_brace(text, found + 2)
            out.append(_expand_braces(text[found + 2 : end], environment, unset))
            at = end + 1
        else:
            name = _NAME.match(text, found + 1)
            out.append(_look_up(name.group(), environment, unset) if name else "$")
            at = name.end() if name else found + 1
    return "".join(out) + text[at:]


def _find_closing_brace(text: str, start: int) -> int:
    """Return the index of the brace that closes the one before `start`: the one that balances it,
    or the last one if the text has more opening than closing braces."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return brace.start()
    last = text.rfind("}", start)
    if last >= 0:
        return last
    raise InterpolationError(f"{text!r} has an unclosed ${{; expected a closing }}")


def _expand_braces(inner: str, environment: Mapping[str, str], unset: Callable[[str], None]) -> str:
    """Return the value of `${…}`, given the text between its braces."""
    name = _NAME.match(inner)
    rest = inner[name.end() :] if name else inner
    if name is None or (rest and not _OPERATOR.match(rest)):
        raise InterpolationError(
            f"${{{inner}}} is not a valid variable; expected ${{NAME}}, ${{NAME:-default}} or "
            "${NAME:?text}"
        )
    if not rest:
        return _look_up(name.group(), environment, unset)
    counts_empty = rest[0] == ":"
    operator, word = rest[counts_empty], rest[1 + counts_empty :]
    value = environment.get(name.group())
    is_set = value is not None and not (counts_empty and not value)
    if operator == "+":
        return interpolate(word, environment, unset) if is_set else ""
    if is_set:
        return value or ""
    if operator == "?":
        why = interpolate(word, environment, unset) or "it has no default"
        raise InterpolationError(f"the variable {name.group()} must be set: {why}")
    return interpolate(word, environment, unset)


def _look_up(name: str, environment: Mapping[str, str], unset: Callable[[str], None]) -> str:
    value = environment.get(name)
    if value is None:
        unset(name)
        return ""
    return value
