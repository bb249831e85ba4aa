"""Keys of the Compose Specification that meshd does not support, and what to use instead.

Used by the readers in this package; `docs/compose.md` lists the same keys. REFUSED keys are errors:
they would change what runs, so ignoring them would run something else than the file says. WARNED
keys are ignored with a warning: they do not affect a replica or its traffic in the mesh.
"""

from typing import Final

_LIMITS: Final = "use deploy.resources.limits.cpus"
_NETWORK: Final = "the mesh assigns addresses to replicas"
_HARDWARE: Final = "replicas have no access to host devices"

SERVICE_REFUSED: Final = {
    "blkio_config": "use deploy.resources for limits",
    "cpu_count": _LIMITS,
    "cpu_percent": _LIMITS,
    "credential_spec": "Windows containers are not supported",
    "external_links": "call a service of another project through one of its routes",
    "isolation": "Windows containers are not supported",
    "label_file": "use labels",
    "links": "services reach each other by name, http://NAME, without links",
    "models": "run the model as a service with an image",
    "network_mode": "the mesh must reach each replica at its own address; use networks",
    "post_start": "use the entrypoint of the image",
    "pre_start": "use x-mesh.rollout.before, or a command that prepares and then starts",
    "pre_stop": "handle the stop signal in the service",
    "privileged": "a privileged replica could bypass the mesh; use cap_add",
    "provider": "run it as a service with an image",
    "pull_refresh_after": "set a version in image",
    "use_api_socket": "a replica with the engine's socket could bypass the mesh",
    "volumes_from": "mount the volume in both services",
}
SERVICE_WARNED: Final = {
    "annotations": "use labels",
    "attach": "use meshd logs, which shows the output of every replica",
    "container_name": "each replica gets its own name, PROJECT-SERVICE-ID",
    "develop": "run meshd up again after a change",
    "mac_address": _NETWORK,
    "platform": "images are pulled for the platform of the node",
    "stdin_open": "replicas have no terminal",
    "tty": "replicas have no terminal",
}
TOP_REFUSED: Final = {
    "models": "run the model as a service with an image",
}
TOP_WARNED: Final = {"version": "Compose files no longer have a version; remove it"}

BUILD_REFUSED: Final = {
    "additional_contexts": "put the files under context",
    "entitlements": "build the image elsewhere and name it in image",
    "extra_hosts": "build the image elsewhere and name it in image",
    "isolation": "Windows containers are not supported",
    "network": "build the image elsewhere and name it in image",
    "privileged": "build the image elsewhere and name it in image",
    "platforms": "build the image elsewhere and name it in image",
    "secrets": "build the image elsewhere and name it in image",
    "ssh": "build the image elsewhere and name it in image",
    "ulimits": "build the image elsewhere and name it in image",
}
_BUILD_CACHE: Final = "the engine's own build cache is used"
BUILD_WARNED: Final = {
    "cache_from": _BUILD_CACHE,
    "cache_to": _BUILD_CACHE,
    "labels": "set them in the Dockerfile",
    "no_cache": _BUILD_CACHE,
    "no_cache_filter": _BUILD_CACHE,
    "provenance": "build the image elsewhere and name it in image",
    "pull": _BUILD_CACHE,
    "sbom": "build the image elsewhere and name it in image",
    "shm_size": "the engine's default is used",
    "tags": "the image gets the name in image",
}
DEPLOY_WARNED: Final = {
    "endpoint_mode": "the mesh balances over the addresses of the replicas",
    "labels": "use the labels of the service",
    "rollback_config": "a rollback uses update_config",
}
RESOURCE_REFUSED: Final = {"devices": _HARDWARE, "generic_resources": _HARDWARE}
PLACEMENT_REFUSED: Final = {
    "preferences": "replicas are always spread over the nodes",
    "max_replicas_per_node": "use constraints",
}
RESTART_WARNED: Final = {
    "max_attempts": "meshd restarts without a limit, with a growing delay",
}
HEALTHCHECK_WARNED: Final = {
    "start_interval": "new replicas are probed at x-mesh.health.interval",
}
NETWORK_WARNED: Final = {
    "gw_priority": _NETWORK,
    "interface_name": _NETWORK,
    "link_local_ips": _NETWORK,
    "mac_address": _NETWORK,
    "priority": _NETWORK,
}
_STATIC: Final = "several replicas cannot share an address; call the service by its name"
NETWORK_REFUSED: Final = {
    "driver_opts": "networks are bridges without options",
    "ipv4_address": _STATIC,
    "ipv6_address": _STATIC,
}
TOP_NETWORK_REFUSED: Final = {
    "driver_opts": "networks are bridges without options",
    "enable_ipv6": "the mesh reaches replicas over IPv4",
    "ipam": "meshd selects free addresses itself",
}
TOP_NETWORK_WARNED: Final = {
    "attachable": "only replicas are attached",
    "enable_ipv4": "the mesh reaches replicas over IPv4",
    "labels": "networks have only the labels of the mesh",
}
TOP_VOLUME_REFUSED: Final = {
    "driver_opts": "volumes are local volumes without options; mount a directory instead",
}
TOP_VOLUME_WARNED: Final = {"labels": "volumes have only the labels of the mesh"}
FILE_REFUSED: Final = {
    "driver": "set file to the path of a file",
    "driver_opts": "set file to the path of a file",
    "external": "set file to the path of a file",
    "template_driver": "set file to the path of a file",
}
FILE_WARNED: Final = {
    "labels": "files have no labels",
    "name": "the key is the name",
}
MOUNT_REFUSED: Final = {"image": "copy the files into the image of the service"}
MOUNT_WARNED: Final = {"consistency": "on Linux, mounts are always consistent with the host"}
