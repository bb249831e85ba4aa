"""The name of a revision: a hash over the fields that define a replica. Pure.

Used by the store, the reconciler and the deployment preview. Services with the same revision have
interchangeable replicas. Fields that can change while a replica keeps running are not hashed.
Defaults are not hashed either, so that a new field in a later version changes no revision.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any, Final

from meshd.spec.image_name import DEFAULT_TAG, normalize_image
from meshd.spec.model import Service

REVISION_LENGTH: Final = 10
"""Characters of base 32: 50 bits, so that two of a thousand revisions of a service share a name
with a probability below one in a billion."""
REPLICA_FIELDS: Final = frozenset(
    {
        "plain",
        "image",
        "image_id",
        "build",
        "command",
        "entrypoint",
        "working_dir",
        "user",
        "environment",
        "networks",
        "network_names",
        "aliases",
        "attachments",
        "volumes",
        "labels",
        "healthcheck",
        "stop_signal",
        "resources",
        "placement",
        "swarm_constraints",
        "spread",
        "max_per_node",
        "init",
        "read_only",
        "cap_add",
        "cap_drop",
        "security_opt",
        "group_add",
        "sysctls",
        "ulimits",
        "shm_size",
        "extra_hosts",
        "dns",
        "dns_search",
        "dns_opt",
        "logging",
        "options",
        "dependency_revisions",
        "pre_start",
        "post_start",
        "pre_stop",
    }
)
"""The fields that define a replica, besides the port it listens on."""
OTHER_FIELDS: Final = frozenset(
    {
        "name",
        "image_digest",
        "pull",
        "image_ports",
        "expose",
        "ports",
        "stop_grace_period",
        "replicas",
        "update",
        "restart",
        "depends_on",
        "wait_healthy",
        "wait_completed",
        "optional_dependencies",
        "restart_with",
        "mode",
        "mesh",
    }
)
"""The fields that take effect without a new replica. Of the ports, only the main port is hashed,
and the published ones that the engine opens for the container."""


def dump_replica_fields(service: Service, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Return the JSON values of the fields that define a replica, without `Mount.is_file`."""
    return service.model_dump(
        mode="json",
        include=set(REPLICA_FIELDS),
        exclude={"volumes": {"__all__": {"is_file"}}},
        exclude_defaults=exclude_defaults,
    )


def compute_revision(service: Service) -> str:
    """Return the revision of a service: 10 letters and digits, equal for equal replicas."""
    # One spelling for all names of an image. Earlier versions added no tag.
    return _hash(service, normalize_image(service.image).removesuffix(f":{DEFAULT_TAG}"))


def is_revision_of(revision: str, service: Service) -> bool:
    """Whether a stored revision is that of the service, also if an earlier version computed it."""
    return revision in (compute_revision(service), _hash(service, service.image))


def _hash(service: Service, image: str) -> str:
    content = dump_replica_fields(service, exclude_defaults=True)
    if content.get("stop_signal") == "SIGTERM":
        del content["stop_signal"]  # earlier versions did not distinguish it from no signal
    if "image" in content:
        content["image"] = image
    content["port"] = service.port
    if service.engine_ports:
        content["ports"] = [str(port) for port in service.engine_ports]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:REVISION_LENGTH]


def pin_dependencies(services: Sequence[Service]) -> tuple[Service, ...]:
    """Return the services with the revisions of the services that restart them: those of
    `restart_with`, and those whose namespaces or mounts they share. So they get a new revision,
    and are replaced, when one of these does."""
    known = {service.name: service for service in services}
    order = TopologicalSorter({each.name: _restarting(each, known) for each in services})
    for name in order.static_order():
        service = known[name]
        revisions = {each: compute_revision(known[each]) for each in _restarting(service, known)}
        if revisions != service.dependency_revisions:
            known[name] = service.model_copy(update={"dependency_revisions": revisions})
    return tuple(known[service.name] for service in services)


def _restarting(service: Service, known: Mapping[str, Service]) -> list[str]:
    names = (*service.restart_with, *service.options.shared_services)
    return [name for name in dict.fromkeys(names) if name in known]
