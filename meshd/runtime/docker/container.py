"""The engine's request to create a container: from a spec, or as a clone of a container that
something else started. Pure.

`create` sends it, `runtime` asks for it. `drift` compares with it later.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from meshd.model.runtime import ReplicaSpec
from meshd.model.volume import volume_name
from meshd.runtime.base import StartFailed
from meshd.runtime.docker import features
from meshd.runtime.docker.drift import LIMITS, requested_config
from meshd.runtime.docker.observe import own_network
from meshd.spec import labels
from meshd.spec.image_name import parse_image_name
from meshd.spec.model import Attachment, BlockDevice, EngineOptions, Healthcheck, Mount, Service

Info = dict[str, Any]

NUMBER = "com.docker.compose.container-number"
DEFAULT_LOG_DRIVER = "json-file"
LOG_LIMITS = {"max-size": "10m", "max-file": "3"}
"""Options of that driver, whose files are unbounded by default."""
NANOSECONDS = 1_000_000_000
"""Per second; the engine counts durations and CPUs in billionths."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A container to create.

    - `config`: the body of the engine's create request, which names one network.
    - `networks`: further networks to connect before the start, by name.
    - `files`: files to write into it before the start.
    - `name`: its name, if it is another than that of the replica.
    - `platform`: the platform of its image, such as `linux/arm64`; empty for the engine's own.
    - `api`: the version of the engine's API that knows all of `config`; (0, 0) if every one does.
    """

    config: Info
    networks: dict[str, Info]
    files: tuple[Mount, ...] = ()
    name: str = ""
    platform: str = ""
    api: tuple[int, int] = (0, 0)


_OPTION_NAMES = {
    "privileged": "Privileged",
    "annotations": "Annotations",
    "cpu_count": "CpuCount",
    "cpu_percent": "CpuPercent",
    "cpuset": "CpusetCpus",
    "cpu_shares": "CpuShares",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "memswap_limit": "MemorySwap",
    "mem_swappiness": "MemorySwappiness",
    "oom_score_adj": "OomScoreAdj",
    "oom_kill_disable": "OomKillDisable",
    "uts": "UTSMode",
    "cgroup": "CgroupnsMode",
    "cgroup_parent": "CgroupParent",
    "userns_mode": "UsernsMode",
    "runtime": "Runtime",
    "storage_opt": "StorageOpt",
}
"""Compose keys that the engine takes as they are, with its names in `HostConfig`."""
_BLOCK_IO = {
    "weight_device": "BlkioWeightDevice",
    "device_read_bps": "BlkioDeviceReadBps",
    "device_read_iops": "BlkioDeviceReadIOps",
    "device_write_bps": "BlkioDeviceWriteBps",
    "device_write_iops": "BlkioDeviceWriteIOps",
}
"""Keys of `blkio_config` with limits for devices, with the engine's names in `HostConfig`."""
_BUILT_IN = frozenset({"bridge", "host", "none"})
"""The engine's own networks, in which containers have no names."""
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
"""The engine's option for the name of a network interface in the container."""
TAG = "meshd-"


def name_of_image(project: str, service: Service) -> str:
    """Return the name of a service's image. An image that is built without a name is called as
    Compose calls it."""
    return service.image or f"{project}_{service.name.lower()}"


def image_of(project: str, service: Service) -> str:
    """Return the image that replicas run. An image that was built for a revision, or that a name
    meant at deployment, has its own tag, so that a rollback finds the old one."""
    name = name_of_image(project, service)
    pinned = service.build.digest if service.build is not None else service.image_id
    return f"{parse_image_name(name).repository}:{TAG}{pinned[:16]}" if pinned else name


def network_name(project: str, service: Service, name: str) -> str:
    """Return the engine's name of a network of a service."""
    return service.network_names.get(name) or engine_name(project, name)


def engine_name(project: str, name: str) -> str:
    """Return the engine's name of a declared network: the same as Compose's, so that both use the
    same networks."""
    return f"{project}_{name}"


def create_request(
    replica: ReplicaSpec,
    logging_driver: str,
    limits: Iterable[str] = tuple(LIMITS),
    peers: Mapping[str, str] = MappingProxyType({}),
) -> CreateRequest:
    """Return the container that the spec describes, on an engine that enforces `limits`. The
    engine never restarts it: the mesh does. `peers` has the id of a container of each service that
    it shares a namespace or mounts with, or that it links to on the engine's default network."""
    service, project = replica.service, replica.project
    options = service.options
    marks = labels.make_labels(
        project, service.name, replica.revision, replica.name, service.port, replica.instance
    )
    name = "" if replica.job or not service.plain else options.container_name
    if replica.job:
        marks[labels.JOB] = replica.name
    if name:
        marks[labels.CONTAINER_NAME] = name
    if replica.attempt:
        marks[labels.ATTEMPT] = str(replica.attempt)
    environment = {**service.environment, **replica.environment}
    if not service.plain:
        environment = {"PORT": str(service.port), **environment}
    networks = _networks(replica)
    mode = _namespace(options.network_mode, peers)
    first = mode or next(iter(networks))
    config: Info = {
        "Image": image_of(project, service),
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Labels": {**service.labels, **marks},
        "ExposedPorts": _exposed(service),
        "StopTimeout": math.ceil(service.stop_grace_period),
        "User": service.user,
        "WorkingDir": service.working_dir,
        "HostConfig": _host_config(replica, first, logging_driver, peers),
    }
    if mode:
        networks = {}
    else:
        config["NetworkingConfig"] = {"EndpointsConfig": {first: networks.pop(first)}}
    if mode.startswith("container:"):  # the other container has the ports and the host name
        del config["ExposedPorts"]
        config["HostConfig"].pop("PortBindings", None)
        if not service.extra_hosts:
            config["HostConfig"]["ExtraHosts"] = []
    if service.stop_signal:  # otherwise the image's STOPSIGNAL holds
        config["StopSignal"] = service.stop_signal
    config |= _container_options(service, replica.job)
    if service.command is not None:
        config["Cmd"] = list(service.command)
    if service.entrypoint is not None:
        config["Entrypoint"] = list(service.entrypoint)
    if service.healthcheck is not None:
        config["Healthcheck"] = healthcheck_config(service.healthcheck)
    if replica.job:
        config["Healthcheck"] = {"Test": ["NONE"]}
        config["ExposedPorts"] = {}
    config["Labels"][labels.CREATED_WITH] = requested_config(config, networks, limits)
    files = tuple(mount for mount in service.volumes if mount.type == "file")
    needed = max((each.api for each in features.newer_features(service)), default=(0, 0))
    return CreateRequest(config, networks, files, name, options.platform, needed)


def _container_options(service: Service, job: bool) -> Info:
    """Return the options that belong to the container itself and that the file sets. Engines before
    25.0 take the address of an interface here; several jobs may run at once, without it."""
    options = service.options
    mac_address = options.mac_address
    if not mac_address and service.networks and service.plain:
        mac_address = _attachment(service, _by_priority(service)[0]).mac_address
    given: Info = {
        "Hostname": options.hostname,
        "Domainname": options.domainname,
        "Tty": options.tty,
        "OpenStdin": options.stdin_open,
        "MacAddress": "" if job else mac_address,
    }
    return {name: value for name, value in given.items() if value}


def _namespace(mode: str, peers: Mapping[str, str]) -> str:
    """Return a namespace in the engine's form: that of a service is that of one of its
    containers."""
    kind, _, name = mode.partition(":")
    return f"container:{_peer(name, peers)}" if kind == "service" else mode


def _peer(service: str, peers: Mapping[str, str]) -> str:
    """Return the id of a container of a service. Raises StartFailed if none runs."""
    if service not in peers:
        raise StartFailed(f"service {service}, which it shares a namespace with, does not run")
    return peers[service]


def _by_priority(service: Service) -> list[str]:
    """Return the networks of a service in the order in which they are joined."""
    return sorted(service.networks, key=lambda name: -_attachment(service, name).priority)


def _attachment(service: Service, name: str) -> Attachment:
    return service.attachments.get(name) or Attachment()


def _networks(replica: ReplicaSpec) -> dict[str, Info]:
    """Return the networks that a container joins, by their names on the engine. A mesh-managed
    replica joins the network of its service first, whose gateway identifies its calls."""
    service, project = replica.service, replica.project
    found: dict[str, Info] = {} if service.plain else {own_network(project, service.name): {}}
    for name in _by_priority(service):
        on_engine = network_name(project, service, name)
        found[on_engine] = {} if on_engine in _BUILT_IN else _endpoint(replica, name)
    return found


def _endpoint(replica: ReplicaSpec, name: str) -> Info:
    """Return how a container joins a network: its names there, links, addresses and options."""
    service, given = replica.service, _attachment(replica.service, name)
    found: Info = {}
    if not replica.job:
        names = [service.name, *service.aliases.get(name, ())]
        if service.plain and service.options.hostname:
            names.append(service.options.hostname)
        found["Aliases"] = list(dict.fromkeys(names))
    if links := _links(service.options):
        found["Links"] = links
    if replica.job:  # several run at once, and none is reached
        return found
    addresses = {
        "IPv4Address": given.ipv4_address,
        "IPv6Address": given.ipv6_address,
        "LinkLocalIPs": list(given.link_local_ips),
    }
    if addresses := {key: value for key, value in addresses.items() if value}:
        found["IPAMConfig"] = addresses
    if given.mac_address:
        found["MacAddress"] = given.mac_address
    if given.gw_priority:
        found["GwPriority"] = given.gw_priority
    options = dict(given.driver_opts)
    if given.interface_name:
        options[INTERFACE_NAME] = given.interface_name
    if options:
        found["DriverOpts"] = options
    return found


def _links(options: EngineOptions) -> list[str]:
    """Return the links of a container in the form `NAME:ALIAS`. The engine looks the name up when
    the alias is asked for, so that a link survives the replacement of a container."""
    links = [link for link in options.links if ":" in link]
    links += [link if ":" in link else f"{link}:{link}" for link in options.external_links]
    return links


def _exposed(service: Service) -> dict[str, Info]:
    """Return the ports that a container declares, in the engine's form."""
    ports = [f"{port}/tcp" for port in service.expose]
    ports += [f"{port.target}/{port.protocol}" for port in service.engine_ports]
    if not service.plain:
        ports.insert(0, f"{service.port}/tcp")
    return {port: {} for port in ports}


def _published(service: Service) -> dict[str, list[Info]]:
    """Return the ports that the engine publishes on the host."""
    found: dict[str, list[Info]] = {}
    for port in service.engine_ports:
        binding = {"HostIp": port.host_ip, "HostPort": port.published}
        found.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    return found


def _host_config(
    replica: ReplicaSpec, network: str, logging_driver: str, peers: Mapping[str, str]
) -> Info:
    service, options = replica.service, replica.service.options
    limits = service.resources
    config: Info = {
        "NetworkMode": network,
        "RestartPolicy": {"Name": "no"},
        "ExtraHosts": [
            f"{name}:{address}"
            for name, addresses in {**service.extra_hosts, **_hosts(replica)}.items()
            for address in addresses.split(",")
        ],
        "Mounts": [
            mount_config(replica.project, mount)
            for mount in service.volumes
            if mount.type != "file" and not mount.options and not _is_created(mount)
        ],
        "Binds": [_bind(mount) for mount in service.volumes if _is_created(mount)],
        "NanoCpus": round(limits.cpus * NANOSECONDS),
        "Memory": limits.memory,
        "MemoryReservation": limits.reserved_memory,
        "Init": service.init,
        "ReadonlyRootfs": service.read_only,
        "CapAdd": list(service.cap_add),
        "CapDrop": dropped_capabilities(service),
        "SecurityOpt": list(service.security_opt),
        "GroupAdd": list(service.group_add),
        "Sysctls": service.sysctls,
        "Ulimits": [
            {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
            for name, limit in service.ulimits.items()
        ],
        "Dns": list(service.dns),
        "DnsSearch": list(service.dns_search),
        "DnsOptions": list(service.dns_opt),
    }
    if (bindings := _published(service)) and not replica.job:
        config["PortBindings"] = bindings
    if service.shm_size:
        config["ShmSize"] = service.shm_size
    if limits.pids:
        config["PidsLimit"] = limits.pids
    if service.logging is not None and (service.logging.driver or service.logging.options):
        driver = service.logging.driver or logging_driver
        config["LogConfig"] = {"Type": driver, "Config": service.logging.options}
    elif logging_driver == DEFAULT_LOG_DRIVER:
        config["LogConfig"] = {"Type": DEFAULT_LOG_DRIVER, "Config": LOG_LIMITS}
    config |= _engine_options(options)
    for key, mode in (("IpcMode", options.ipc), ("PidMode", options.pid)):
        if mode:
            config[key] = _namespace(mode, peers)
    if options.volumes_from:
        config["VolumesFrom"] = [_volumes_from(each, peers) for each in options.volumes_from]
    if network == "bridge":  # without names; links are written into the container's /etc/hosts
        links = [f"{_peer(each.partition(':')[0], peers)}:{_alias(each)}" for each in options.links]
        links += [f"{each.partition(':')[0]}:{_alias(each)}" for each in options.external_links]
        config["Links"] = links
    if tmpfs := {mount.target: mount.options for mount in service.volumes if mount.options}:
        config["Tmpfs"] = tmpfs
    return config


def _hosts(replica: ReplicaSpec) -> dict[str, str]:
    """Return the addresses of the mesh by host name, with the aliases that links give them."""
    found = dict(replica.hosts)
    for link in replica.service.options.links:
        name = link.partition(":")[0]
        if name in replica.hosts:
            found[_alias(link)] = replica.hosts[name]
    return found


def _alias(link: str) -> str:
    name, _, alias = link.partition(":")
    return alias or name


def _volumes_from(text: str, peers: Mapping[str, str]) -> str:
    """Return an entry of `volumes_from` in the engine's form: the id or name, and the mode."""
    if text.startswith("container:"):
        return text.removeprefix("container:")
    name, colon, mode = text.partition(":")
    return f"{_peer(name, peers)}{colon}{mode}"


def _engine_options(options: EngineOptions) -> Info:
    """Return the options of the engine that the file sets, by their names in `HostConfig`."""
    given = options.model_dump(exclude_defaults=True)
    found: Info = {name: given[key] for key, name in _OPTION_NAMES.items() if key in given}
    for key, name in _BLOCK_IO.items():
        devices: tuple[BlockDevice, ...] = getattr(options.blkio_config, key)
        value = "Weight" if key == "weight_device" else "Rate"
        if devices:
            found[name] = [{"Path": each.path, value: each.value} for each in devices]
    if options.blkio_config.weight:
        found["BlkioWeight"] = options.blkio_config.weight
    if options.device_cgroup_rules:
        found["DeviceCgroupRules"] = list(options.device_cgroup_rules)
    if options.devices:
        names = ("PathOnHost", "PathInContainer", "CgroupPermissions")
        found["Devices"] = [
            dict(zip(names, device.split(":"), strict=True)) for device in options.devices
        ]
    if options.gpus:
        found["DeviceRequests"] = [
            {
                "Driver": request.driver,
                "Count": request.count,
                "DeviceIDs": list(request.device_ids),
                "Capabilities": [list(request.capabilities)],
                "Options": request.options,
            }
            for request in options.gpus
        ]
    return found


def dropped_capabilities(service: Service) -> list[str]:
    """Return the capabilities to drop. For a mesh-managed service NET_RAW is one of them unless
    requested: with it a container can forge its address on a shared network, and the address
    identifies the caller."""
    if service.plain:
        return list(service.cap_drop)
    added = {name.upper().removeprefix("CAP_") for name in service.cap_add}
    kept = added & {"NET_RAW", "ALL"}
    return [*service.cap_drop, *(() if kept else ("NET_RAW",))]


def _is_created(mount: Mount) -> bool:
    """Whether the engine creates the host directory of a bind mount if it is missing, or labels it
    for SELinux. Only `Binds` does so on every engine; it has no form for a path with a colon."""
    is_directory = mount.type == "bind" and not mount.version and not mount.must_exist
    has_form = ":" not in mount.source + mount.target and not mount.recursive
    return (is_directory or bool(mount.selinux)) and has_form


def _bind(mount: Mount) -> str:
    words = ["ro" if mount.read_only else "rw"]
    words += filter(None, (mount.propagation, mount.selinux))
    return f"{mount.source}:{mount.target}:{','.join(words)}"


def mount_config(project: str, mount: Mount) -> Info:
    source = mount.source
    if mount.type == "volume" and source:
        source = volume_name(project, mount)
    found: Info = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    if source and mount.type != "tmpfs":
        found["Source"] = source
    tmpfs = {"SizeBytes": mount.size, "Mode": mount.mode if mount.type == "tmpfs" else 0}
    if tmpfs := {key: value for key, value in tmpfs.items() if value}:
        found["TmpfsOptions"] = tmpfs
    volume: Info = {}
    if mount.nocopy:
        volume["NoCopy"] = True
    if mount.volume_labels and not mount.source:  # others are labelled when they are created
        volume["Labels"] = mount.volume_labels
    if mount.subpath and mount.type == "volume":
        volume["Subpath"] = mount.subpath
    if volume:
        found["VolumeOptions"] = volume
    if mount.subpath and mount.type == "image":
        found["ImageOptions"] = {"Subpath": mount.subpath}
    bind: Info = {}
    if mount.propagation:
        bind["Propagation"] = mount.propagation
    if mount.recursive == "disabled":
        bind["NonRecursive"] = True
    elif mount.recursive == "writable":
        bind["ReadOnlyNonRecursive"] = True
    elif mount.recursive == "readonly":
        bind["ReadOnlyForceRecursive"] = True
    if bind:
        found["BindOptions"] = bind
    return found


def healthcheck_config(check: Healthcheck) -> Info:
    """Return a health check in the engine's form. The engine takes the values that are 0, and an
    empty test, from the image."""
    if check.disable:
        return {"Test": ["NONE"]}
    values: Info = {
        "interval": round(check.interval * NANOSECONDS),
        "timeout": round(check.timeout * NANOSECONDS),
        "retries": check.retries,
        "start_period": round(check.start_period * NANOSECONDS),
        "start_interval": round(check.start_interval * NANOSECONDS),
    }
    found: Info = {"Test": list(check.test)} if check.test else {}
    for name, value in values.items():
        if value and name not in check.inherited:
            found["".join(word.capitalize() for word in name.split("_"))] = value
    return found


def clone_request(info: Info, name: str, number: int, instance: str = "") -> CreateRequest:
    """Return a copy of the container that the engine describes with `info`, under a new name and,
    for a Compose container, with the container number `number`.

    Image, command, environment, mounts, networks and labels are kept, so that Compose treats it as
    its own. What only one container can have is dropped: published host ports, fixed addresses, the
    generated host name.
    """
    config: Info = copy.deepcopy(info["Config"])
    host: Info = copy.deepcopy(info["HostConfig"])
    original = info["Name"].removeprefix("/")
    short_id = info["Id"][:12]
    if config.get("Hostname") == short_id:
        del config["Hostname"]
    marks: dict[str, str] = config.get("Labels") or {}
    marks |= {labels.MANAGED: "1", labels.REPLICA: name, labels.CLONE_OF: original}
    marks.pop(labels.CREATED_WITH, None)
    if instance:
        marks[labels.INSTANCE] = instance
    if NUMBER in marks:
        marks[NUMBER] = str(number)
    config["Labels"] = marks
    host["PortBindings"] = {}
    host["ContainerIDFile"] = ""
    host["RestartPolicy"] = {"Name": "no"}
    config["HostConfig"] = host
    endpoints = {
        network: {"Aliases": [a for a in endpoint.get("Aliases") or () if a != short_id]}
        for network, endpoint in (info["NetworkSettings"]["Networks"] or {}).items()
    }
    mode = host.get("NetworkMode", "default")
    if mode in endpoints:
        config["NetworkingConfig"] = {"EndpointsConfig": {mode: endpoints.pop(mode)}}
    elif mode == "default":
        endpoints.pop("bridge", None)
    elif mode.startswith(("container:", "host", "none")):
        endpoints = {}  # these modes allow no other network
    return CreateRequest(config, endpoints)


def next_number(known: list[dict[str, str]], of: dict[str, str]) -> int:
    """Return the next free container number for a container with labels `of`, given the labels
    of all containers."""
    same = (labels.COMPOSE_PROJECT, labels.COMPOSE_SERVICE)
    numbers = [
        marks.get(NUMBER, "")
        for marks in known
        if all(marks.get(key) == of.get(key) for key in same)
    ]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
