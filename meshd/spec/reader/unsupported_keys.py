"""Keys of the Compose Specification that meshd does not take, and what to do instead.

REFUSED keys would change what runs, so ignoring them would run something else than was
written. WARNED ones change nothing about a replica or its traffic on a mesh.
"""

from typing import Final

_LIMITS: Final = "use deploy.resources.limits.cpus"
_NODE: Final = "it depends on one machine, and replicas are placed on any"
_NETWORK: Final = "the mesh addresses replicas itself"
_HARDWARE: Final = "replicas get no devices of the host"

SERVICE_REFUSED: Final = {
    "blkio_config": "use deploy.resources for limits",
    "cgroup": "replicas have a control group of their own",
    "cgroup_parent": _NODE,
    "cpu_count": _LIMITS,
    "cpu_percent": _LIMITS,
    "cpu_period": _LIMITS,
    "cpu_quota": _LIMITS,
    "cpu_rt_period": _LIMITS,
    "cpu_rt_runtime": _LIMITS,
    "cpuset": _LIMITS,
    "credential_spec": "it is for Windows containers",
    "device_cgroup_rules": _HARDWARE,
    "devices": _HARDWARE,
    "external_links": "call a service of another project through a route of it",
    "gpus": _HARDWARE,
    "ipc": "replicas share no memory with one another or the host",
    "isolation": "it is for Windows containers",
    "label_file": "write the labels under labels",
    "links": "services reach one another by name, http://NAME, without it",
    "models": "run the model as a service with an image",
    "network_mode": "the mesh must be able to reach each replica by its own address; use networks",
    "oom_kill_disable": "use deploy.resources.limits.memory",
    "pid": "replicas share no processes with one another or the host",
    "post_start": "do it in the image's entrypoint",
    "pre_stop": "do it in the service when it gets its stop signal",
    "privileged": "a replica with all rights could reach past the mesh; use cap_add",
    "provider": "run it as a service with an image",
    "pull_refresh_after": "name a version in image",
    "runtime": "replicas run with the engine's default runtime",
    "storage_opt": "use a volume",
    "use_api_socket": "a replica with the engine's socket could reach past the mesh",
    "userns_mode": "set user namespaces on the engine",
    "uts": "replicas have host names of their own",
    "volumes_from": "name the volume in both services",
}
SERVICE_WARNED: Final = {
    "annotations": "use labels",
    "attach": "meshd logs shows every replica's output",
    "container_name": "each replica gets a name of its own, PROJECT-SERVICE-ID",
    "cpu_shares": "use deploy.resources.limits.cpus",
    "develop": "run meshd up again after a change",
    "domainname": "replicas are reached by their service's name",
    "hostname": "replicas are reached by their service's name",
    "mac_address": _NETWORK,
    "mem_swappiness": "use deploy.resources.limits.memory",
    "memswap_limit": "use deploy.resources.limits.memory",
    "oom_score_adj": "use deploy.resources.limits.memory",
    "platform": "images are taken for the node's own platform",
    "stdin_open": "replicas have no terminal",
    "tty": "replicas have no terminal",
}
TOP_REFUSED: Final = {
    "models": "run the model as a service with an image",
}
TOP_WARNED: Final = {"version": "Compose files have no version any more; take it out"}

BUILD_REFUSED: Final = {
    "additional_contexts": "put what is needed under context",
    "dockerfile_inline": "write it to a file and name that in dockerfile",
    "entitlements": "build the image elsewhere and name it in image",
    "extra_hosts": "build the image elsewhere and name it in image",
    "isolation": "it is for Windows containers",
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
    "labels": "write them into the Dockerfile",
    "no_cache": _BUILD_CACHE,
    "provenance": "build the image elsewhere and name it in image",
    "pull": _BUILD_CACHE,
    "sbom": "build the image elsewhere and name it in image",
    "shm_size": "the engine's default is used",
    "tags": "the image gets the name under image",
}
DEPLOY_WARNED: Final = {
    "endpoint_mode": "the mesh balances over the replicas' addresses",
    "labels": "use the service's labels",
    "rollback_config": "going back uses update_config",
}
RESOURCE_REFUSED: Final = {"devices": _HARDWARE, "generic_resources": _HARDWARE}
PLACEMENT_REFUSED: Final = {
    "preferences": "replicas are spread over the nodes already",
    "max_replicas_per_node": "use constraints",
}
RESTART_WARNED: Final = {
    "max_attempts": "meshd never gives up; it restarts with a growing delay",
}
HEALTHCHECK_WARNED: Final = {
    "start_interval": "a new replica is probed by x-mesh.health.interval",
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
    "driver_opts": "networks are plain bridges",
    "ipv4_address": _STATIC,
    "ipv6_address": _STATIC,
}
TOP_NETWORK_REFUSED: Final = {
    "driver_opts": "networks are plain bridges",
    "enable_ipv6": "the mesh reaches replicas by IPv4",
    "external": "meshd makes each network itself; declare it without external",
    "ipam": "meshd takes free addresses itself",
    "name": "networks are named after the project and the key",
}
TOP_NETWORK_WARNED: Final = {
    "attachable": "only replicas are attached",
    "enable_ipv4": "the mesh reaches replicas by IPv4",
    "labels": "networks carry the mesh's own labels",
}
TOP_VOLUME_REFUSED: Final = {
    "driver_opts": "volumes are plain local ones; mount a directory instead",
    "external": "meshd makes each volume itself; declare it without external",
    "name": "volumes are named after the project and the key",
}
TOP_VOLUME_WARNED: Final = {"labels": "volumes carry the mesh's own labels"}
FILE_REFUSED: Final = {
    "content": "write it to a file and name that in file",
    "driver": "name a file in file",
    "driver_opts": "name a file in file",
    "environment": "write it to a file and name that in file",
    "external": "name a file in file",
    "template_driver": "name a file in file",
}
FILE_WARNED: Final = {
    "labels": "files carry no labels",
    "name": "the key is the name",
}
FILE_USE_REFUSED: Final = {
    "gid": "the file is mounted with the owner it has on the host",
    "mode": "the file is mounted with the mode it has on the host",
    "uid": "the file is mounted with the owner it has on the host",
}
MOUNT_REFUSED: Final = {"image": "copy the files into the service's own image"}
MOUNT_WARNED: Final = {"consistency": "mounts are as consistent as the host's own files"}
