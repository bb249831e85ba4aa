"""Compares who may call a service with who did: the audit, and suggested `allow` lists. Pure.

The facade builds the policies with it; the CLI (`meshd policy`) runs the audit and the suggestion.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.api.dto import ServicePolicy
from meshd.model.scaling import CallerSeen
from meshd.spec.model import Service

UNKNOWN: Final = "unknown"
"""The caller of calls that the proxy cannot attribute to a service."""
OUTSIDE: Final = "outside"
"""The caller of requests that come through a published port."""
_NEEDS_QUOTES: Final = re.compile(r"(?i:null|true|false)|[0-9][0-9_.e+-]*|0x[0-9a-f]+|0o[0-7]+")


class UncoveredCaller(msgspec.Struct, frozen=True):
    """A caller that the `allow` list of a service does not cover.

    - `calls`: all its calls; `uncovered`: those that the list did not cover when they were made.
    - `last`: time of the last call (Unix time).
    - `refused`: whether its calls are refused now; with `audit` they are let through.
    """

    service: str
    caller: str
    calls: int
    uncovered: int
    last: float
    refused: bool


def service_policies(
    project: str, services: Sequence[Service], seen: Mapping[str, Sequence[CallerSeen]]
) -> list[ServicePolicy]:
    """Return the policy of each service with its callers, by name; names in `allow` become
    `PROJECT/SERVICE`."""
    return [
        ServicePolicy(
            service=service.name,
            allow=None if service.mesh.allow is None else _qualify(project, service.mesh.allow),
            audit=service.mesh.audit,
            callers=tuple(seen.get(service.name, ())),
        )
        for service in services
    ]


def uncovered_callers(found: Sequence[ServicePolicy]) -> list[UncoveredCaller]:
    """Return every caller that the current `allow` lists do not cover."""
    return [
        UncoveredCaller(
            policy.service, by.caller, by.calls, by.uncovered, by.last, not policy.audit
        )
        for policy in found
        if policy.allow is not None
        for by in policy.callers
        if by.caller not in policy.allow
    ]


def suggest_allow_lists(
    project: str, found: Sequence[ServicePolicy], format_time: Callable[[float], str]
) -> str:
    """Return a Compose file to merge over the project's own (`-f FILE -f THIS`): an `allow` list
    of the callers of each service, with a comment for each caller that it leaves out.
    `format_time` formats a Unix time."""
    seen = [by for policy in found for by in policy.callers]
    total = sum(by.calls for by in seen)
    since = min((by.first for by in seen), default=0.0)
    lines = [f"# Made from {total} calls between the services of {project}."]
    if since:
        lines = [f"{lines[0][:-1]} since {format_time(since)}."]
    lines += [
        "# Services that made no call in this time are missing. Review the lists before use.",
        "services:",
    ]
    for policy in found:
        lines += _suggest_service(project, policy)
    return "\n".join(lines) + "\n"


def _suggest_service(project: str, policy: ServicePolicy) -> list[str]:
    callers = [by.caller for by in policy.callers if by.calls and "/" in by.caller]
    names = ", ".join(_quote(_shorten(project, caller)) for caller in callers)
    lines = [f"  {_quote(policy.service)}:", "    x-mesh:", f"      allow: [{names}]"]
    if not callers:
        lines[-1] += "  # no calls"
    for by in policy.callers:
        if by.caller == UNKNOWN:
            lines.append(f"      # {by.calls + by.uncovered} calls of unknown callers")
        elif by.caller == OUTSIDE:
            lines.append(f"      # {by.calls} requests through published ports")
        elif not by.calls:
            lines.append(f"      # {by.uncovered} calls of {by.caller} were refused")
    return lines


def _qualify(project: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name if "/" in name else f"{project}/{name}" for name in names))


def _shorten(project: str, key: str) -> str:
    return key.removeprefix(f"{project}/")


def _quote(name: str) -> str:
    """Return a name as YAML text, quoted if YAML would read it as something else."""
    return f'"{name}"' if _NEEDS_QUOTES.fullmatch(name) else name
