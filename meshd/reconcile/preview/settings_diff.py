"""What a new spec changes without replacing a replica: routes, scaling, policies. Pure."""

from collections.abc import Iterator, Mapping

from meshd.spec.model import Project, Service


def settings_changed(before: Project, after: Project, revised: frozenset[str]) -> list[str]:
    """One line a service of `after` that is there before and after and differs in more than
    what names its revision; `revised` names those whose revision changes, which the plan's
    own operations tell of."""
    old = {service.name: service for service in before.services}
    lines = []
    if before.quota != after.quota:
        lines.append(f"update {after.name}: its quota is {after.quota or 'none'} from now on")
    for service in after.services:
        if service.name in old and service.name not in revised:
            fields = sorted(_differing(_plain(old[service.name]), _plain(service)))
            if fields:
                lines.append(
                    f"update {after.name}/{service.name}: {', '.join(fields)} changed; "
                    "no replica is replaced"
                )
    return lines


def _plain(service: Service) -> Mapping[str, object]:
    values = service.model_dump(mode="json")
    return {**values, "mesh": None, **values["mesh"]}


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """The names of fields that differ, one level down where both are mappings."""
    for name in old.keys() | new.keys():
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from (f"{name}.{inner}" for inner in _differing(one, other))
        elif one != other:
            yield name
