"""Whether a container still has the configuration it was created with. Pure.

A label holds what was requested at creation: the limits that the engine enforces, the restart
policy (none: the mesh restarts) and the networks. A container that was changed later, with `docker
update` or by disconnecting a network, no longer matches its revision. `observe` reports it.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshd.spec import labels

Info = Mapping[str, Any]
LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "NanoCpus": ("CpuCfsQuota", "the CPU limit"),
    "CpuQuota": ("CpuCfsQuota", "the CPU quota"),
    "CpuShares": ("CPUShares", "the CPU shares"),
    "CpusetCpus": ("CPUSet", "the set of CPUs"),
    "Memory": ("MemoryLimit", "the memory limit"),
    "MemoryReservation": ("MemoryLimit", "the memory reservation"),
    "PidsLimit": ("PidsLimit", "the limit of processes"),
}
"""By the name in `HostConfig`: the engine's name for the ability to enforce the limit, and the
name for people."""
NETWORKS: Final = "networks"
RESTART: Final = "restart"
OVERLAY_SUFFIX: Final = "__swarm"
"""End of the names of overlays that `meshd migrate` connects containers to."""


def enforced_limits(info: Info) -> frozenset[str]:
    """Return the limits that an engine enforces, from its `GET /info`. It ignores others."""
    return frozenset(name for name, (ability, _) in LIMITS.items() if info.get(ability))


def requested_config(config: Info, networks: Iterable[str], limits: Iterable[str]) -> str:
    """Return what is requested, as the label holds it; of the limits only `limits`."""
    host = config["HostConfig"]
    own = config.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    mode = host["NetworkMode"]
    if not own and not mode.startswith("container:"):
        own = {mode: {}}  # the engine lists its own networks like others
    found: dict[str, object] = {name: _value(host, name) for name in sorted(limits)}
    found[NETWORKS] = sorted({*own, *networks})
    found[RESTART] = "no"
    return json.dumps(found, separators=(",", ":"))


def applied_limits(info: Info) -> dict[str, object]:
    """Return the limits that a container has now."""
    return {name: _value(info["HostConfig"], name) for name in LIMITS}


def default_limits(info: Info) -> dict[str, object]:
    """Return the limits that a container has now and that were not requested. On the first sight
    of a container they are the engine's own: Podman limits processes by default, and states a CPU
    limit as a quota too."""
    try:
        made = json.loads((info["Config"].get("Labels") or {}).get(labels.CREATED_WITH, "{}"))
    except ValueError:
        return {}
    return {name: value for name, value in applied_limits(info).items() if not made.get(name)}


def describe_drift(info: Info, first: Mapping[str, object] | None = None) -> str:
    """Describe how a container differs from its creation, for people; empty if it does not, or
    if its creation is unknown. `first` are limits that it had when it was first seen, or right
    after its creation: the engine chose them."""
    marks: Mapping[str, str] = info["Config"].get("Labels") or {}
    name = info["Name"].removeprefix("/")
    if not labels.is_managed(marks):
        return ""
    if name not in (marks.get(labels.REPLICA, name), marks.get(labels.CONTAINER_NAME)):
        return f"carries the labels of {marks[labels.REPLICA]}"
    try:
        made = json.loads(marks.get(labels.CREATED_WITH, "{}"))
    except ValueError:
        return f"its label {labels.CREATED_WITH} was not written by meshd"
    changes = [*_limits(made, info["HostConfig"], first or {})]
    policy = (info["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
    if policy != made.get(RESTART, policy):
        changes.append(f"the restart policy is {policy}")
    networks = info["NetworkSettings"]["Networks"] or {}
    asked = set(made.get(NETWORKS, networks))
    has = {each for each in networks if each in asked or not each.endswith(OVERLAY_SUFFIX)}
    missing = sorted(set(made.get(NETWORKS, ())) - has)
    if missing:
        changes.append(f"it was disconnected from {', '.join(missing)}")
    more = sorted(has - asked)
    if more:
        changes.append(f"it was connected to {', '.join(more)}")
    return f"was changed by something other than meshd: {'; '.join(changes)}" if changes else ""


def _limits(made: Mapping[str, object], host: Info, first: Mapping[str, object]) -> Iterable[str]:
    for name, (_, words) in LIMITS.items():
        now = _value(host, name)
        if name in made and now not in (made[name], first.get(name, made[name])):
            yield f"{words} is {_readable(name, now)} instead of {_readable(name, made[name])}"


def _readable(name: str, value: object) -> str:
    """Return a limit with its unit."""
    if not isinstance(value, int) or not value:
        return str(value or "none")
    if name == "NanoCpus":
        return f"{value / 1e9:g} CPUs"
    return f"{value / 2**20:g} MiB" if name.startswith("Memory") else str(value)


def _value(host: Info, name: str) -> object:
    """Return a limit; 0 or missing means none."""
    value = host.get(name) or ("" if name == "CpusetCpus" else 0)
    return 0 if value == -1 else value
