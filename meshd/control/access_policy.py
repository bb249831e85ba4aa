"""Who may call whom, held against who did: the audit, and a proposal for `allow`. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.api.dto import ServicePolicy
from meshd.model.scaling import CallerSeen
from meshd.spec.model import Service

UNKNOWN: Final = "unknown"
"""Who called where the proxy could not tell."""
_NOT_PLAIN: Final = re.compile(r"(?i:null|true|false)|[0-9][0-9_.e+-]*|0x[0-9a-f]+|0o[0-7]+")


class Outside(msgspec.Struct, frozen=True):
    """Calls that a service's `allow` does not cover. `refused` tells whether they are refused
    now, or let through for the audit."""

    service: str
    caller: str
    calls: int
    uncovered: int
    last: float
    refused: bool


def policies(
    project: str, services: Sequence[Service], seen: Mapping[str, Sequence[CallerSeen]]
) -> list[ServicePolicy]:
    """The policy of each service with its callers; allowed names as `PROJECT/SERVICE`."""
    return [
        ServicePolicy(
            service=service.name,
            allow=None if service.mesh.allow is None else _keys(project, service.mesh.allow),
            audit=service.mesh.audit,
            callers=tuple(seen.get(service.name, ())),
        )
        for service in services
    ]


def outside(found: Sequence[ServicePolicy]) -> list[Outside]:
    """Every caller that the present `allow` lists do not cover."""
    return [
        Outside(policy.service, by.caller, by.calls, by.uncovered, by.last, not policy.audit)
        for policy in found
        if policy.allow is not None
        for by in policy.callers
        if by.caller not in policy.allow
    ]


def suggestion(project: str, found: Sequence[ServicePolicy], date: Callable[[float], str]) -> str:
    """A Compose file to merge over the project's own (`-f FILE -f THIS`): for each service an
    `allow` list of those whose calls got through, with a comment for what the list leaves out.
    `date` puts a Unix time in words."""
    seen = [by for policy in found for by in policy.callers]
    total = sum(by.calls for by in seen)
    since = min((by.first for by in seen), default=0.0)
    lines = [f"# Made from {total} calls between the services of {project}."]
    if since:
        lines = [f"{lines[0][:-1]} since {date(since)}."]
    lines += [
        "# Who has not called for as long is not in it: look through it before it is enforced.",
        "services:",
    ]
    for policy in found:
        lines += _suggested(project, policy)
    return "\n".join(lines) + "\n"


def _suggested(project: str, policy: ServicePolicy) -> list[str]:
    callers = [by.caller for by in policy.callers if by.calls and by.caller != UNKNOWN]
    names = ", ".join(_plain(_short(project, caller)) for caller in callers)
    lines = [f"  {_plain(policy.service)}:", "    x-mesh:", f"      allow: [{names}]"]
    if not callers:
        lines[-1] += "  # nobody called it"
    for by in policy.callers:
        if by.caller == UNKNOWN:
            lines.append(f"      # {by.calls + by.uncovered} calls of somebody unknown")
        elif not by.calls:
            lines.append(f"      # {by.uncovered} calls of {by.caller} were refused")
    return lines


def _keys(project: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name if "/" in name else f"{project}/{name}" for name in names))


def _short(project: str, key: str) -> str:
    return key.removeprefix(f"{project}/")


def _plain(name: str) -> str:
    """A name as YAML text, in quotes where it would be read as something else."""
    return f'"{name}"' if _NOT_PLAIN.fullmatch(name) else name
