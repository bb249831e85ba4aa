"""The ports that a Dockerfile declares, without building it. Pure.

Used by `image`: the ports of a mesh-managed service are part of its spec, which is complete before
its image is built.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_HEREDOC: Final = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_NO_BASE: Final = "scratch"


@dataclass(slots=True)
class _Stage:
    """One stage: its base, which is an image or an earlier stage, and what it declares."""

    name: str
    base: str
    ports: set[int] = field(default_factory=set)


def declared_ports(
    text: str, arguments: Mapping[str, str], target: str = ""
) -> tuple[frozenset[int], str]:
    """Return the TCP ports that the stages up to `target` (empty: the last one) expose, and the
    image that they are based on; an empty name if there is none. `arguments` are those of the
    build."""
    stages: list[_Stage] = []
    outer: dict[str, str] = {}
    values: dict[str, str] = {}
    for word, rest in _instructions(text):
        if word == "FROM":
            words = [_expand(each, outer) for each in rest.split() if not each.startswith("--")]
            name = words[2] if len(words) > 2 and words[1].upper() == "AS" else ""
            stages.append(_Stage(name.lower(), words[0] if words else ""))
            values = {}
        elif word == "ARG":
            for name, value in _assignments(rest):
                given = arguments.get(name, outer.get(name) if stages and value is None else value)
                if given is not None:
                    (values if stages else outer)[name] = _expand(given, values or outer)
        elif word == "ENV":
            values |= {name: _expand(value or "", values) for name, value in _assignments(rest)}
        elif word == "EXPOSE" and stages:
            for each in rest.split():
                stages[-1].ports |= _ports(_expand(each, values))
    return _ports_of(stages, target.lower())


def _ports_of(stages: list[_Stage], target: str) -> tuple[frozenset[int], str]:
    """Return the ports of a stage and of the stages that it is based on, and their base image."""
    number = len(stages) - 1
    for index, stage in enumerate(stages):
        if target and target in (stage.name, str(index)):
            number = index
    found: set[int] = set()
    while number >= 0:
        stage = stages[number]
        found |= stage.ports
        earlier = [i for i in range(number) if stage.base.lower() in (stages[i].name, str(i))]
        if not earlier or not stage.base:
            return frozenset(found), "" if stage.base == _NO_BASE else stage.base
        number = earlier[-1]
    return frozenset(found), ""


def _instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions with their arguments, without comments and here-documents."""
    found: list[tuple[str, str]] = []
    line = ""
    ends: list[str] = []
    for raw in text.splitlines():
        if ends:
            if raw.strip() == ends[0]:
                del ends[0]
            continue
        if raw.lstrip().startswith("#") or not raw.strip():
            continue
        line += raw.strip()
        if line.endswith("\\"):
            line = line[:-1] + " "
            continue
        word, _, rest = line.partition(" ")
        found.append((word.upper(), rest.strip()))
        if word.upper() in ("RUN", "COPY", "ADD"):
            ends = [match[2] for match in _HEREDOC.finditer(rest)]
        line = ""
    return found


def _assignments(text: str) -> list[tuple[str, str | None]]:
    """Return the names and values of ARG and ENV; None: no value. `ENV NAME VALUE` is one too."""
    words = text.split()
    if len(words) > 1 and "=" not in words[0]:
        return [(words[0], text.partition(words[0])[2].strip())]
    pairs = [word.partition("=") for word in words]
    return [(name, value.strip("\"'") if equals else None) for name, equals, value in pairs]


def _expand(text: str, values: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        value = values.get(match[1] or match[2], "")
        if match[3] == "-":
            return value or match[4]
        return match[4] if match[3] == "+" and value else "" if match[3] == "+" else value

    return _VARIABLE.sub(replace, text)


def _ports(text: str) -> set[int]:
    """Return the TCP ports of `8080`, `8080/tcp` or `8000-8010`; none of anything else."""
    span, _, protocol = text.strip("\"'").partition("/")
    first, _, last = span.partition("-")
    if protocol.lower() not in ("", "tcp") or not first.isdecimal():
        return set()
    if last and not last.isdecimal():
        return set()
    return {port for port in range(int(first), int(last or first) + 1) if 1 <= port <= 65535}
