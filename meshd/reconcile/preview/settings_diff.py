"""Settings that a new spec changes without replacing replicas: routes, scaling, policies. Pure.

Called by `meshd.control.deploy.preview`.
"""

from collections.abc import Iterator, Mapping

from meshd.spec.advice import describe_kind
from meshd.spec.model import Project, Service


def diff_settings(before: Project, after: Project, revised: frozenset[str]) -> list[str]:
    """Return one line for each service whose settings change.

    New services and `revised` ones, whose revision changes, are left out: the operations show them.
    A change of the kind of a service, and one of the default order of replacement, are named for
    `revised` services as well.
    """
    old = {service.name: service for service in before.services}
    lines = []
    if before.quota != after.quota:
        lines.append(f"update {after.name}: its quota becomes {after.quota or 'none'}")
    if before.notify != after.notify:
        hosts = ", ".join(target.host for target in after.notify) or "none"
        lines.append(f"update {after.name}: its webhooks become {hosts}")
    if before.trace_url != after.trace_url:
        lines.append(f"update {after.name}: its trace links become {after.trace_url or 'none'}")
    hooks = before.backups.keys() | after.backups.keys()
    changed_hooks = [n for n in sorted(hooks) if before.backups.get(n) != after.backups.get(n)]
    if changed_hooks:
        names = ", ".join(changed_hooks)
        lines.append(
            f"update {after.name}: backup hooks of {names} changed; no replica is replaced"
        )
    for service in after.services:
        lines += _kind_change(after.name, old.get(service.name), service)
        order_change = _default_order_change(after.name, old.get(service.name), service)
        lines += order_change
        if service.name in old and service.name not in revised:
            changed = set(_changed_fields(_fields(old[service.name]), _fields(service)))
            fields = sorted(changed - ({"update.order"} if order_change else set()))
            if fields:
                lines.append(
                    f"update {after.name}/{service.name}: {', '.join(fields)} changed; "
                    "no replica is replaced"
                )
    return lines


def _fields(service: Service) -> Mapping[str, object]:
    """The fields of a service, with those of `mesh` on the same level."""
    values = service.model_dump(mode="json", exclude={"volumes": {"__all__": {"is_file"}}})
    update = {**values["update"], "order": service.update_order}
    restart = {**values["restart"], "condition": service.restart_condition}
    return {**values, "update": update, "restart": restart, "mesh": None, **values["mesh"]}


def _kind_change(project: str, old: Service | None, new: Service) -> list[str]:
    """The line that names a change from mesh-managed to plain or back, or between HTTP and TCP;
    empty if there is none."""
    if old is None:
        return []
    before, after = describe_kind(old), describe_kind(new)
    if before.kind == after.kind:
        return []
    changes = [f"becomes {after.kind} (it was {before.kind})"]
    if old.plain != new.plain:
        kinds, causes = ("mesh-managed", "plain"), ("it has x-mesh now", "it has no x-mesh")
        changes = [
            f"becomes {kinds[new.plain]} (it was {kinds[old.plain]}), as {causes[new.plain]}"
        ]
    if old.restart_condition != new.restart_condition:
        changes.append(f"restart becomes {new.restart_condition} (it was {old.restart_condition})")
    changes.append(f"it is {after.kind}, reached at {', '.join(after.reached)}")
    return [f"update {project}/{new.name}: {'; '.join(changes)}"]


def _default_order_change(project: str, old: Service | None, new: Service) -> list[str]:
    """The line that names another default of `update_config.order`; empty if it is the same."""
    if old is None or new.update.order is not None or new.update_order == old.update_order:
        return []
    mount = new.data_mount
    cause = "no mount holds data" if mount is None else f"{mount.target} holds data"
    if mount is None and new.update_order == "stop-first":
        cause = "it is plain" if new.plain else "the engine publishes one of its ports"
    return [
        f"update {project}/{new.name}: update.order becomes {new.update_order} (it was "
        f"{old.update_order}), as {cause} and the file sets no order"
    ]


def _changed_fields(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """Yield the names of fields that differ, with the inner name where both are mappings."""
    for name in old.keys() | new.keys():
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from (f"{name}.{inner}" for inner in _changed_fields(one, other))
        elif one != other:
            yield name
