"""What each service of a Compose file is under meshd, and which plain services would gain from
`x-mesh`. Pure.

Used by `meshd check` and `meshd up`. `docs/compose.md` explains the two kinds of services.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from meshd.spec.model import Network, Project, Service
from meshd.spec.model.well_known_ports import WELL_KNOWN_PROTOCOLS

_URL: Final = re.compile(
    r"http://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(\d+))?(/[^\s\"'|&;)]*)?"
)
"""A request of a health check to its own container."""
_HTTP_PORTS: Final = frozenset({80, 3000, 4200, 5000, 5173, 8000, 8080, 8081, 8888})
"""Ports that by convention speak HTTP."""
_HTTP_PROGRAMS: Final = frozenset(
    {"gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "flask", "puma"}
    | {"unicorn", "http.server", "next", "nuxt", "rails"}
)
"""Programs that serve HTTP, as they appear in commands."""
_HTTP_IMAGES: Final = frozenset({"nginx", "httpd", "caddy", "traefik", "whoami", "http-echo"})
"""Images, by the last part of their names, that serve HTTP."""
_OTHER_IMAGES: Final = frozenset(
    {"postgres", "postgis", "timescaledb", "mysql", "mariadb", "mongo", "redis", "valkey", "etcd"}
    | {"memcached", "rabbitmq", "kafka", "cp-kafka", "zookeeper", "nats", "mosquitto", "emqx"}
    | {"elasticsearch", "opensearch", "clickhouse-server", "minio", "cassandra", "consul", "vault"}
)
"""Images of databases and brokers: replicas of them do not share their state."""
_PORT_OPTION: Final = re.compile(r"(?:--port|--bind|--http-port|-p|-b)[= ](?:\S*:)?(\d{2,5})\b")


@dataclass(frozen=True, slots=True)
class ServiceKind:
    """What a service is under meshd.

    - `kind`: `plain`, `HTTP` or `TCP`, or both as `HTTP+TCP`.
    - `why`: the reason, for people.
    - `reached`: how others reach it: names with ports, then addresses of the host.
    """

    service: str
    kind: str
    why: str
    reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeshSuggestion:
    """A line that would make a plain service mesh-managed.

    - `line`: the line for the Compose file, without indentation.
    - `why`: what shows that the service speaks HTTP on a known port.
    """

    service: str
    line: str
    why: str


def describe_kinds(project: Project) -> tuple[ServiceKind, ...]:
    """Return what each service of the project is, in the order of the file."""
    return tuple(map(describe_kind, project.services))


def suggest_mesh(project: Project) -> tuple[MeshSuggestion, ...]:
    """Return a suggestion for each plain service that speaks HTTP on a known port and holds no
    data."""
    return tuple(filter(None, map(_suggest, project.services)))


def describe_kind(service: Service) -> ServiceKind:
    """Return what a service is."""
    host = [f"host {port}" for port in service.ports]
    if service.plain:
        if service.options.network_mode:
            return ServiceKind(service.name, "plain", "no x-mesh", (_reached_in_mode(service),))
        ports = dict.fromkeys(f"{service.name}:{port}" for port in service.expose)
        reached = (*(ports or (service.name,)), *host)
        return ServiceKind(service.name, "plain", "no x-mesh", tuple(reached))
    passed = service.passthrough_ports
    http = [port for port in service.mesh_ports if port not in passed]
    tcp = [port for port in service.mesh_ports if port in passed]
    named = [service.name] if http else []
    named += [f"{service.name}:{port}" for port in (*http, *tcp) if port != 80 or port in tcp]
    routes = [f"route {route}" for route in service.mesh.routes]
    kinds = ["HTTP"] * bool(http) + ["TCP"] * bool(tcp)
    why = f"x-mesh; main port {service.port}, {_source_of_port(service)}"
    if service.mesh.tcp is None:
        why += "".join(f"; {port} is the port of {WELL_KNOWN_PROTOCOLS[port]}" for port in tcp)
    return ServiceKind(service.name, "+".join(kinds), why, (*named, *host, *routes))


def _reached_in_mode(service: Service) -> str:
    """Return how a service without networks is reached."""
    mode = service.options.network_mode
    kind, _, name = mode.partition(":")
    if name:
        return f"on the addresses of {kind} {name}"
    return {"host": "on the host's addresses", "none": "not at all"}.get(mode, "by its address")


def _source_of_port(service: Service) -> str:
    """Return where the main port is declared."""
    if service.mesh.port:
        return "from x-mesh.port"
    if service.expose:
        published = {port.target for port in service.ports if port.protocol == "tcp"}
        return "from ports" if service.port in published else "from expose"
    if service.image_ports:
        return "from EXPOSE of the image"
    if service.environment.get("PORT") == str(service.port):
        return "from PORT in environment"
    return "unless the image declares another (EXPOSE)"


def _past_the_mesh(services: Sequence[Service], networks: Sequence[Network]) -> list[str]:
    """Return what does not go through the mesh although its service is mesh-managed."""
    found = []
    foreign = {each.name for each in networks if each.external or each.driver not in ("", "bridge")}
    for service in services:
        if service.plain:
            continue
        found += [
            f"{service.name}: plain services on the network {name} reach its replicas directly, "
            "past the mesh, which has no addresses there; a bridge network of the file has some"
            for name in sorted(foreign & set(service.networks))
        ]
        others = [str(port) for port in service.ports if port.protocol != "tcp"]
        if others:
            found.append(
                f"{service.name}: {', '.join(others)} is reached only through the port of the "
                f"host, not at {service.name} by name: the mesh passes on TCP; without x-mesh the "
                "name leads to the container"
            )
    return found


def _suggest(service: Service) -> MeshSuggestion | None:
    if not service.plain or service.data_mount is not None:
        return None
    if any(port.protocol != "tcp" for port in service.ports):
        return None
    if _image_name(service) in _OTHER_IMAGES or _is_bound(service):
        return None
    found = _http_by_health(service) or _http_by_program(service) or _http_by_ports(service)
    if found is None:
        return None
    port, path, why = found
    settings = [] if port == service.port else [f"port: {port}"]
    settings.append(f"health: {path or 'tcp'}")
    return MeshSuggestion(service.name, f"x-mesh: {{{', '.join(settings)}}}", why)


def _is_bound(service: Service) -> bool:
    """Whether the service has a network or rights that only one container should have."""
    fixed = any(each.has_address for each in service.attachments.values())
    options = service.options
    return fixed or options.privileged or bool(options.network_mode or options.mac_address)


def _image_name(service: Service) -> str:
    """Return the last part of the image's name, without tag and digest."""
    return PurePosixPath(service.image.partition("@")[0]).name.partition(":")[0]


def _http_by_health(service: Service) -> tuple[int, str, str] | None:
    """Return port, path and reason if the health check requests a URL of the container itself."""
    check = service.healthcheck
    if check is None or check.disable:
        return None
    match = _URL.search(" ".join(check.test))
    if match is None:
        return None
    path = match[2] or "/"
    return int(match[1] or 80), path, f"its health check requests {match[0]}"


def _http_by_program(service: Service) -> tuple[int, str, str] | None:
    """Return port, path and reason if the image or the command is a known HTTP server."""
    words = [*(service.entrypoint or ()), *(service.command or ())]
    text = " ".join(words)
    names = {PurePosixPath(word).name for word in re.split(r"\s+", text)}
    program = next(iter(sorted(names & _HTTP_PROGRAMS)), "")
    given = _PORT_OPTION.search(text)
    if program and (given or service.expose):
        port = int(given[1]) if given else service.port
        return port, "", f"{program} serves HTTP on port {port}"
    image = _image_name(service)
    if image in _HTTP_IMAGES:
        port = service.expose[0] if service.expose else 80
        return port, "", f"the image {image} serves HTTP on port {port}"
    return None


def _http_by_ports(service: Service) -> tuple[int, str, str] | None:
    """Return port, path and reason if a declared port speaks HTTP by convention."""
    port = next((each for each in service.expose if each in _HTTP_PORTS), None)
    return None if port is None else (port, "", f"port {port} usually speaks HTTP")


def list_differences(
    services: Sequence[Service], networks: Sequence[Network] = ()
) -> tuple[str, ...]:
    """Return what differs from Docker Compose for these services of a project with these networks,
    one line each."""
    found = [
        "containers without container_name are called PROJECT-SERVICE-ID; logs of the json-file "
        "driver are rotated at 10 MB, and three files are kept, unless the file sets logging"
    ]
    managed = [service.name for service in services if not service.plain]
    if managed:
        names = ", ".join(managed)
        found.append(
            f"{names}: requests go through the mesh; replicas get PORT, MESH_SERVICE, MESH_REPLICA "
            "and MESH_URL_* variables, and NET_RAW is dropped"
        )
        starts = [s.name for s in services if not s.plain and s.update_order == "start-first"]
        if starts:
            found.append(f"{', '.join(starts)}: a new replica starts before the old one ends")
    found += _past_the_mesh(services, networks)
    checked = [s.name for s in services if s.plain and s.healthcheck and not s.healthcheck.disable]
    if checked:
        found.append(
            f"{', '.join(checked)}: a container whose health check fails is replaced; Compose "
            "leaves it running"
        )
    return tuple(found)
