"""The name of a revision: a hash over what a replica is.

Two services with the same revision have interchangeable replicas, so whatever can change
while a replica runs on stands outside. Defaults are left out of what is hashed: a new field
of a later version of the model renames no revision.
"""

import base64
import hashlib
import json
from typing import Final

from meshd.spec.model import Service

REVISION_LENGTH: Final = 10
REPLICA_FIELDS: Final = frozenset(
    {
        "image",
        "image_id",
        "build",
        "command",
        "entrypoint",
        "working_dir",
        "user",
        "environment",
        "networks",
        "aliases",
        "volumes",
        "labels",
        "healthcheck",
        "stop_signal",
        "resources",
        "placement",
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
    }
)
"""The fields a replica is made of, beside the port it listens on."""
OTHER_FIELDS: Final = frozenset(
    {
        "name",
        "image_digest",
        "pull",
        "expose",
        "stop_grace_period",
        "replicas",
        "update",
        "restart",
        "depends_on",
        "wait_healthy",
        "mesh",
    }
)
"""The fields that take effect without a new replica. Of `expose` and `mesh`, the port they
come to is hashed."""


def compute_revision(service: Service) -> str:
    """The service's revision: 10 letters and digits, equal for equal replicas."""
    content = service.model_dump(mode="json", include=set(REPLICA_FIELDS), exclude_defaults=True)
    content["port"] = service.port
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:REVISION_LENGTH]
