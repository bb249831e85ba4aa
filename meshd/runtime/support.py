"""Features of a spec that a runtime does not support, by name, before anything starts. Pure.

Used by admission (`meshd.control.deploy`) and by the runtimes before a start.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from meshd.model.runtime import Capabilities
from meshd.runtime.docker.features import NewerFeature, missing_features
from meshd.runtime.docker.images.build_parameters import (
    buildkit_keys,
    cache_keys,
    services_as_contexts,
)
from meshd.runtime.swarm import limits
from meshd.spec.model import Build, PlacementSettings, Project, Service


@dataclass(frozen=True, slots=True)
class UnsupportedFeature:
    """One feature that the runtime does not support.

    - `refuse`: the service cannot run there; otherwise it runs without the feature and the user is
      warned.
    - `service`: name of the service.
    - `text`: what is missing.
    """

    refuse: bool
    service: str
    text: str

    def __str__(self) -> str:
        return f"service {self.service}: {self.text}"


_CONTAINER_ONLY = (
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
    "aliases",
    "init",
)
"""Fields that apply to containers only."""


def unsupported(service: Service, capabilities: Capabilities) -> list[UnsupportedFeature]:
    """Return everything in `service` that a runtime with these capabilities does not support,
    refusals first."""
    found = [
        UnsupportedFeature(True, service.name, text) for text in _refused(service, capabilities)
    ]
    found += [
        UnsupportedFeature(False, service.name, text) for text in _ignored(service, capabilities)
    ]
    return found


def unsupported_features(project: Project, capabilities: Capabilities) -> tuple[str, ...]:
    """Return one line per service of a project: the features it runs without."""
    found: dict[str, list[str]] = {}
    for service in project.services:
        for lack in unsupported(service, capabilities):
            if not lack.refuse:
                found.setdefault(lack.service, []).append(lack.text)
    return tuple(f"service {name}: {'; '.join(texts)}" for name, texts in found.items())


def refused_names(project: Project, capabilities: Capabilities) -> list[str]:
    """Return which names of a project the runtime does not accept, one line for each."""
    return list(limits.refused_names(project)) if capabilities.swarm else []


def _refused(service: Service, can: Capabilities) -> Iterator[str]:
    yield from (str(each) for each in _missing(service, can) if each.needed)
    given = [name for name in ("pre_start", "post_start", "pre_stop") if getattr(service, name)]
    if given and not can.images:
        yield f"{', '.join(given)} need containers, and local processes have none"
    if can.swarm:
        yield from limits.refused(service)
    if can.images:
        if not service.image and service.build is None:
            yield "has neither image nor build, and a container needs one"
        if service.build is not None:
            yield from _refused_build(service.build, can)
    elif not service.command and not service.entrypoint:
        yield "has no command, and a local process needs one (the image's command is not read)"


def _refused_build(build: Build, can: Capabilities) -> Iterator[str]:
    if not can.buildkit:
        for key in buildkit_keys(build):
            yield (
                f"build.{key} needs BuildKit, and the plugin buildx of the docker command is not "
                "installed where meshd runs; install it (docker buildx version must answer), or "
                "build the image elsewhere and name it in image"
            )
    for at in services_as_contexts(build):
        yield (
            f"build.additional_contexts: {at} is built by itself; give that service an image, and "
            "name it as docker-image://NAME"
        )


def _needs_swarm(service: Service) -> Iterator[str]:
    """Yield the parts of `deploy.placement` that one host has no use for."""
    if service.swarm_constraints:
        yield f"the constraint {', '.join(service.swarm_constraints)} has an effect in a Swarm only"
    if service.spread or service.max_per_node:
        yield "preferences and max_replicas_per_node have an effect in a Swarm only"
    if service.mesh.placement != PlacementSettings():
        yield "x-mesh.placement has an effect in a Swarm only"


def _missing(service: Service, can: Capabilities) -> list[NewerFeature]:
    """Return the features that the engine is too old for."""
    return [] if can.engine_api is None else missing_features(service, can.engine_api)


def _ignored(service: Service, can: Capabilities) -> Iterator[str]:
    for each in _missing(service, can):
        if not each.needed:
            yield f"{each}, and is ignored"
    if can.swarm:
        yield from limits.ignored(service)
    else:
        yield from _needs_swarm(service)
    if can.images and not can.buildkit and service.build is not None:
        for key in cache_keys(service.build):
            yield f"build.{key} is ignored without the plugin buildx of the docker command"
    if not can.images:
        if service.image:
            yield f"image {service.image} is ignored; the command runs on this host as it is"
        if service.build:
            yield f"build {service.build.context} is ignored; the command runs on this host"
        if service.user:
            yield f"user {service.user} is ignored; it runs as the user of meshd"
        if service.read_only:
            yield "read_only is ignored; it can write wherever the user of meshd can"
        if service.cap_add or service.cap_drop:
            yield "cap_add and cap_drop are ignored"
        given = [name for name in _CONTAINER_ONLY if getattr(service, name)]
        given += service.options.model_dump(exclude_defaults=True)
        if given:
            yield f"{', '.join(given)} apply to containers only and are ignored"
    declared = [name for name in service.networks if name != "default"]
    if not can.networks and declared:
        yield f"networks {', '.join(declared)} do not isolate local processes"
    if not can.networks and (service.mesh.allow is not None or declared):
        yield (
            "callers are identified by a token in each replica's environment, which every "
            "process of the same user can read in /proc; run services that do not trust each other "
            "on Docker"
        )
    if not can.networks and service.mesh.is_enforced:
        yield "x-mesh.enforce has no effect; local processes share the host's network"
    if not can.networks and service.ports:
        published = ", ".join(str(port) for port in service.ports)
        yield f"ports {published} are not published; use x-mesh.routes"
    if not can.networks and service.passthrough_ports:
        ports = ", ".join(map(str, service.passthrough_ports))
        yield f"the mesh passes no connections on to TCP port {ports}; only containers have this"
    scale = service.mesh.scale
    if scale is not None and not set(service.mesh_ports) - set(service.passthrough_ports):
        for name in ("objective", "queue"):
            if getattr(scale, name):
                yield (
                    f"scale.{name} needs requests, and the service has TCP ports only; use "
                    "scale.concurrency, the connections per replica"
                )
    if not can.volumes:
        for mount in service.volumes:
            yield f"{mount.type} volume at {mount.target} is not mounted"
    if not can.cpu_limits and service.resources.cpus:
        yield f"CPU limit {service.resources.cpus:g} is not enforced"
    if not can.memory_limits and service.resources.memory:
        yield f"memory limit {service.resources.memory / 2**20:g} MiB is not enforced"
    if not can.memory_limits and service.resources.pids:
        yield f"pids limit {service.resources.pids} is not enforced"
    if not can.pause and service.mesh.scale is not None and service.mesh.scale.warm:
        yield "scale.warm is ignored; replicas cannot be paused here"
    if not can.container_health and service.healthcheck and not service.healthcheck.disable:
        yield "healthcheck is ignored; only the probe under x-mesh.health counts"
