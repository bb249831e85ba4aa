"""Parse `.env` and `env_file` files: lines of `NAME=value`.

Called by `meshd.spec.source.loader` and `meshd.spec.reader.host_files`. Single quotes keep a value
unchanged; unquoted and double-quoted values may use variables. ` #` starts a comment after an
unquoted value. `export ` before a name is allowed.
"""

import re
from collections.abc import Mapping
from typing import Final

from meshd.spec.errors import Diagnostics, Location, Problem
from meshd.spec.source.interpolate import InterpolationError, interpolate

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:=\s*(.*))?", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def parse_env_file(
    text: str, file: str, environment: Mapping[str, str], diagnostics: Diagnostics
) -> dict[str, str]:
    """Return the variables of one file; errors are recorded, and their lines left out.

    A line may use the variables of earlier lines; `environment` takes precedence over them. A name
    without a value gets its value from `environment`, and is left out if it is not set there.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        location = Location(file, number)
        match = _LINE.fullmatch(stripped)
        if match is None:
            diagnostics.problems.append(
                Problem(
                    location, "", "", f"{stripped!r} is not a valid variable; expected NAME=value"
                )
            )
        elif match.group(2) is None:
            if match.group(1) in environment:
                found[match.group(1)] = environment[match.group(1)]
        else:
            try:
                found[match.group(1)] = _parse_value(match.group(2), {**found, **environment})
            except (InterpolationError, ValueError) as error:
                diagnostics.problems.append(Problem(location, "", match.group(1), str(error)))
    return found


def _parse_value(raw: str, environment: Mapping[str, str]) -> str:
    quote = raw[:1]
    if quote not in {"'", '"'}:
        return interpolate(
            re.split(r"(?:^|\s+)#", raw, maxsplit=1)[0].strip(), environment, _ignore_unset
        )
    end = _find_closing_quote(raw, quote)
    rest = raw[end + 1 :].strip()
    if rest and not rest.startswith("#"):
        raise ValueError(f"{rest!r} follows the closing quote; expected nothing or a comment")
    inner = raw[1:end]
    if quote == "'":
        return inner
    unescaped = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), inner)
    return interpolate(unescaped, environment, _ignore_unset)


def _find_closing_quote(raw: str, quote: str) -> int:
    index = 1
    while index < len(raw):
        if raw[index] == "\\" and quote == '"':
            index += 1
        elif raw[index] == quote:
            return index
        index += 1
    raise ValueError("the quote is not closed on this line; expected a closing quote")


def _ignore_unset(_name: str) -> None:
    """Replace an unset variable in an env file by nothing without a warning, as shells do."""
