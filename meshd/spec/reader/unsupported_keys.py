"""Keys of the Compose Specification that meshd does not support, and what to use instead.

Used by the readers in this package; `docs/compose.md` lists the same keys. REFUSED keys are errors:
they would change what runs, so ignoring them would run something else than the file says. WARNED
keys are ignored with a warning: they do not affect a replica or its traffic in the mesh.
"""

from typing import Final

_SWARM: Final = "only a Swarm cluster has it"

SERVICE_REFUSED: Final = {
    "credential_spec": "it exists for Windows containers only; remove it",
    "models": "Compose needs a plugin for it; run the model as a service with an image",
    "provider": "Compose needs a plugin for it; run it as a service with an image",
}
SERVICE_WARNED: Final = {
    "attach": "use meshd logs, which shows the output of every replica",
    "develop": "run meshd up again after a change",
    "pull_refresh_after": "meshd pulls only at a deployment; set pull_policy",
}
TOP_REFUSED: Final = {
    "models": "Compose needs a plugin for it; run the model as a service with an image",
}
TOP_WARNED: Final = {"version": "Compose files no longer have a version; remove it"}

_BUILDKIT: Final = "images of a mesh stay on their engine, without attestations"
BUILD_WARNED: Final = {
    "provenance": _BUILDKIT,
    "sbom": _BUILDKIT,
}
DEPLOY_WARNED: Final = {
    "labels": "use the labels of the service",
    "rollback_config": "a rollback uses update_config",
}
RESOURCE_WARNED: Final = {"generic_resources": _SWARM}
FILE_WARNED: Final = {
    "driver": _SWARM,
    "driver_opts": _SWARM,
    "labels": "files have no labels",
    "name": "the key is the name",
    "template_driver": _SWARM,
}
MOUNT_WARNED: Final = {"consistency": "on Linux, mounts are always consistent with the host"}
