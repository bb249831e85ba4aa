"""Container labels: those that meshd writes on its replicas, and those it reads from adopted ones.

Used by the runtimes, discovery and the reconciler. After a restart, meshd finds its replicas by the
labels it has written.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from meshd.spec.errors import Diagnostics, Location, Problem
from meshd.spec.model import Service
from meshd.spec.reader import mesh, service
from meshd.spec.source.cursor import Cursor
from meshd.spec.source.yaml_tree import SourceNode

PREFIX: Final = "mesh."
MANAGED: Final = "mesh.managed"
"""`1` on every container that meshd started, including clones of adopted containers."""
PROJECT: Final = "mesh.project"
SERVICE: Final = "mesh.service"
REVISION: Final = "mesh.revision"
REPLICA: Final = "mesh.replica"
"""The name of the replica. It is also the id of its endpoint and the name of its container."""
PORT: Final = "mesh.port"
HEALTH: Final = "mesh.health"
"""The port that the replica listens on, in its own network."""
CONTAINER_NAME: Final = "mesh.container-name"
"""On a container with a `container_name`: that name, which it has in place of the replica's."""
INSTANCE: Final = "mesh.instance"
"""The id of the state directory of the daemon that started it."""
CLONE_OF: Final = "mesh.clone-of"
"""On a clone: the name of the adopted container it was copied from."""
CREATED_WITH: Final = "mesh.shape"
"""The limits and networks the container was created with. `docker update` can change them later."""
ATTEMPT: Final = "mesh.attempt"
"""The number of quick failures in a row before the start of the replica; absent for 0."""
PLACED: Final = "mesh.placed"
"""Why the replica is on its node; absent where nothing was to choose."""
NODE_PORT: Final = "mesh.node-port"
"""On a Swarm service: the port of its node that leads to its main port. The Swarm itself forgets it
once another manager leads."""
FREE_PART: Final = "mesh.free-part"
"""On a network: the part of its addresses, in CIDR notation, that no container gets."""
JOB: Final = "mesh.job"
"""On a job: its id, which is also the name of the container. A job is not a replica."""

COMPOSE_PROJECT: Final = "com.docker.compose.project"
COMPOSE_SERVICE: Final = "com.docker.compose.service"
COMPOSE_CONFIG_HASH: Final = "com.docker.compose.config-hash"
DEFAULT_PROJECT: Final = "default"


def make_labels(
    project: str, service: str, revision: str, replica: str, port: int, instance: str = ""
) -> dict[str, str]:
    """Return the labels of a replica that meshd starts."""
    marks = {
        MANAGED: "1",
        PROJECT: project,
        SERVICE: service,
        REVISION: revision,
        REPLICA: replica,
        PORT: str(port),
    }
    return {**marks, INSTANCE: instance} if instance else marks


def is_managed(labels: Mapping[str, str]) -> bool:
    """Whether meshd started the container with these labels."""
    return labels.get(MANAGED) == "1"


def is_meshed(labels: Mapping[str, str]) -> bool:
    """Whether the container with these labels is part of the mesh."""
    return any(name.startswith(PREFIX) for name in labels)


def project_of(labels: Mapping[str, str]) -> str:
    """Return the project of a container: `mesh.project`, or Compose's label, or `default`."""
    return labels.get(PROJECT) or labels.get(COMPOSE_PROJECT) or DEFAULT_PROJECT


def service_of(labels: Mapping[str, str]) -> str:
    """Return the service of a container: `mesh.service`, or Compose's label; empty if neither is
    set."""
    return labels.get(SERVICE) or labels.get(COMPOSE_SERVICE) or ""


def adopt(
    container: str, labels: Mapping[str, str], image: str = "", exposed: Sequence[int] = ()
) -> tuple[str, Service]:
    """Return the project and the service that the labels of a running container describe.

    `exposed` are the ports that its image declares; the first is the default of `mesh.port`. Every
    setting of `x-mesh` is a label by its dotted name (`mesh.scale.max`, `mesh.timeouts.request`).
    `mesh.route` and `mesh.allow` take several values, separated by commas. The `labels` of the
    service hold the hash of Compose's configuration, so that the revision changes with it.
    Raises SpecError, with the container and the label.
    """
    location = Location(f"container {container}")
    diagnostics = Diagnostics()
    project, name = project_of(labels), service_of(labels)
    patterns = (service.PROJECT_NAME_PATTERN, service.NAME_PATTERN)
    for label, word, pattern in zip((PROJECT, SERVICE), (project, name), patterns, strict=True):
        if not pattern.fullmatch(word):
            text = f"{word!r} is not a valid name; expected letters, digits, - and _"
            diagnostics.problems.append(Problem(location, "", f"label {label}", text))
    nodes = {k: SourceNode(v, location, v) for k, v in labels.items() if k.startswith(PREFIX)}
    settings = mesh.read_mesh(
        Cursor(mesh.build_tree_from_labels(nodes, location), diagnostics, field="label mesh"), None
    )
    diagnostics.raise_if_any()
    assert settings is not None
    return project, Service(
        name=name,
        image=image,
        expose=tuple(exposed),
        labels={k: v for k, v in labels.items() if k == COMPOSE_CONFIG_HASH},
        replicas=settings.scale.min if settings.scale else 1,
        mesh=settings,
    )
