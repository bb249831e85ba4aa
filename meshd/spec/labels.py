"""Labels: what the mesh writes on the replicas it starts, and reads from those it adopts.

Written labels are the runtime's record of what is ours: a restarted control process finds
everything again by them.
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
"""`1` on whatever meshd started, clones of adopted containers included."""
PROJECT: Final = "mesh.project"
SERVICE: Final = "mesh.service"
REVISION: Final = "mesh.revision"
REPLICA: Final = "mesh.replica"
"""The replica's name, which is also its endpoint's id and the container's name."""
PORT: Final = "mesh.port"
"""What the replica listens on, in its own network."""
INSTANCE: Final = "mesh.instance"
"""The mesh that started it: the id of its state."""
CLONE_OF: Final = "mesh.clone-of"
"""On a clone: the name of the adopted container that it was copied from."""
CREATED_WITH: Final = "mesh.shape"
"""What the container was made with, of what can be changed later (`docker update`)."""
JOB: Final = "mesh.job"
"""On a one-off: its id, which is also the container's name. It is no replica."""

COMPOSE_PROJECT: Final = "com.docker.compose.project"
COMPOSE_SERVICE: Final = "com.docker.compose.service"
COMPOSE_CONFIG_HASH: Final = "com.docker.compose.config-hash"
DEFAULT_PROJECT: Final = "default"


def make_labels(
    project: str, service: str, revision: str, replica: str, port: int, instance: str = ""
) -> dict[str, str]:
    """The labels of a replica that meshd starts."""
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
    """Whether meshd started what carries these labels."""
    return labels.get(MANAGED) == "1"


def is_meshed(labels: Mapping[str, str]) -> bool:
    """Whether these labels make their container part of the mesh."""
    return any(name.startswith(PREFIX) for name in labels)


def project_of(labels: Mapping[str, str]) -> str:
    """The project a container belongs to: `mesh.project`, else Compose's, else `default`."""
    return labels.get(PROJECT) or labels.get(COMPOSE_PROJECT) or DEFAULT_PROJECT


def service_of(labels: Mapping[str, str]) -> str:
    """The service a container belongs to: `mesh.service`, else Compose's; empty when none."""
    return labels.get(SERVICE) or labels.get(COMPOSE_SERVICE) or ""


def adopt(
    container: str, labels: Mapping[str, str], image: str = "", exposed: Sequence[int] = ()
) -> tuple[str, Service]:
    """The project and service that a running container's labels describe.

    `exposed` are the ports its image declares; the first stands where `mesh.port` is not
    given. Every setting of `x-mesh` is a label by its dotted name (`mesh.scale.max`,
    `mesh.timeouts.request`); `mesh.route` and `mesh.allow` take several, with commas. The
    service's `labels` hold what Compose says of the container's configuration, so that its
    revision changes with it. Raises SpecError, naming container and label.
    """
    location = Location(f"container {container}")
    diagnostics = Diagnostics()
    project, name = project_of(labels), service_of(labels)
    for label, word in ((PROJECT, project), (SERVICE, name)):
        if not service.NAME_PATTERN.fullmatch(word):
            text = f"{word!r} is no name; expected lower-case letters, digits, - and _"
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
