"""Checks of one service across its keys, after they were read.

Called by `meshd.spec.reader.service`. Checks across services are in
`meshd.spec.reader.project_checks`.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from meshd.spec.model import Mount, Service
from meshd.spec.source.cursor import Cursor
from meshd.spec.source.yaml_tree import SourceNode


def warn_of_misspelled_x_mesh(at: Cursor, mapping: Mapping[str, SourceNode]) -> None:
    """Warn about `x-` keys that look like a misspelled `x-mesh`; all others are allowed."""
    for key in get_close_matches("x-mesh", mapping, n=9, cutoff=0.8):
        if key.startswith("x-") and key != "x-mesh":
            at.child(mapping[key], key).add_warning("this key has no effect; did you mean x-mesh?")


def check_targets(at: Cursor, mounts: Sequence[Mount]) -> None:
    """Record every target that two mounts share."""
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            at.add_problem(f"two mounts have the target {mount.target}; expected one")
        seen.add(mount.target)


def check_container_name(at: Cursor, service: Service) -> None:
    """Record a `container_name` of a service with several replicas, which Compose refuses too."""
    if not service.options.container_name:
        return
    node = _child(at, "container_name")
    if service.replicas > 1:
        node.add_problem(
            f"{service.replicas} replicas cannot share a name; remove it, or expected one replica"
        )
    elif not service.plain:
        node.add_warning(
            "the container of a service with x-mesh has its own name, PROJECT-SERVICE-ID, because "
            "it may have several"
        )


def check_upstream(at: Cursor, service: Service) -> None:
    """Record `upstream.tls` of a service without a port that speaks HTTP: connections to the others
    are passed on as they are. Record HTTP/2 over TLS without TLS."""
    if service.mesh.protocol == "h2" and service.mesh.upstream.tls is None:
        at.add_problem(
            "protocol h2 is HTTP/2 over TLS; expected upstream: {tls: true}, or h2c for HTTP/2 in "
            "the clear"
        )
    if service.mesh.upstream.tls is not None and service.is_passthrough(service.port):
        at.add_problem(
            f"upstream.tls is for HTTP, and port {service.port} is passed on as TCP; remove it, or "
            "the port from x-mesh.tcp"
        )


def check_server_names(at: Cursor, service: Service) -> None:
    """Record server names of TCP ports that are not published: they apply at the host only."""
    published = {each.target for each in service.ports if each.protocol == "tcp"}
    for each in service.mesh.tcp or ():
        if each.sni and each.port not in published:
            at.add_problem(
                f"tcp: port {each.port} has sni, which applies where the port is published; add it "
                f'to ports, e.g. "443:{each.port}"'
            )


def check_networks(at: Cursor, service: Service) -> None:
    """Record keys of networks that exclude each other, or that keep the mesh from reaching the
    replicas of a service that it manages."""
    mode = service.options.network_mode
    if mode and service.networks:
        _child(at, "network_mode").add_problem(
            "network_mode and networks are both set; expected one of them"
        )
    if mode and not service.plain:
        _child(at, "network_mode").add_problem(
            f"with network_mode: {mode} a replica has no own address, which the mesh needs; "
            "use networks, or remove x-mesh to run the service as under Compose"
        )
    if service.options.privileged and not service.plain:
        _child(at, "privileged").add_warning(
            "a privileged replica can bypass the mesh, so that allow does not hold for its calls"
        )
    for name, attachment in service.attachments.items():
        if not attachment.has_address:
            continue
        if service.replicas > 1:
            _child(at, "networks").add_problem(
                f"{service.replicas} replicas cannot share an address in {name}; expected one "
                "replica"
            )
        elif not service.plain:
            _child(at, "networks").add_problem(
                f"an address in {name} cannot belong to several replicas, which x-mesh starts; "
                "call the service by its name, or remove x-mesh to run it as under Compose"
            )


def _child(at: Cursor, key: str) -> Cursor:
    """Return the cursor of a key, or that of the service if the file does not have it."""
    node = (at.node.mapping or {}).get(key)
    return at if node is None else at.child(node, key)


def warn_of_order(at: Cursor, service: Service) -> None:
    """Warn about an order that needs two containers where only one can run at a time."""
    use = service.exclusive_use
    if service.plain and service.update.order == "start-first" and use is not None:
        at.add_warning(
            "deploy.update_config.order: start-first has no effect, because only one container "
            f"can have {use}"
        )


def check_port(at: Cursor, service: Service) -> None:
    """Warn about a PORT variable of the file that names another port than requests are sent to."""
    given = service.environment.get("PORT")
    if given is not None and not service.plain and given != str(service.port):
        at.add_warning(
            f"environment sets PORT to {given!r}, but the mesh sends requests to port "
            f"{service.port}; set x-mesh.port to the port that the program listens on"
        )


def warn_of_additional_replicas(at: Cursor, service: Service) -> None:
    """Warn about settings that need more containers than replicas, if these hold data."""
    mount = service.data_mount
    if mount is None or service.update.order == "start-first":
        return
    rollout, scale = service.mesh.rollout, service.mesh.scale
    adds = rollout.strategy in {"canary", "blue-green"}
    names = [f"rollout.strategy: {rollout.strategy}"] if adds else []
    names += ["rollout.max_surge"] if rollout.max_surge not in {"", "0", "0%"} else []
    names += ["scale.warm"] if scale is not None and scale.warm else []
    for name in names:
        at.add_warning(
            f"x-mesh.{name} starts no additional replica, because {mount.target} holds data; set "
            "deploy.update_config.order: start-first if several replicas may use it at once"
        )


def expand_parallelism(service: Service) -> Service:
    """Replace a parallelism of 0, which means all replicas in Compose, by the highest number of
    replicas."""
    if service.update.parallelism:
        return service
    most = max(1, service.replicas, service.mesh.scale.max if service.mesh.scale else 0)
    update = service.update.model_copy(update={"parallelism": most})
    return service.model_copy(update={"update": update})
