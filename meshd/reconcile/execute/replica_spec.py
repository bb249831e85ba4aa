"""What a replica is told at its start: where it listens, and how it calls other services.

Pure. On a runtime with networks, services have names (`http://payments`), and the network
that a call comes in by tells who calls. Elsewhere each replica has a credential in its URLs,
derived from the store's secret and its name, so that nothing has to be kept.
"""

import hashlib
import hmac
import os.path
from collections.abc import Mapping
from dataclasses import replace

from meshd.model.job import Job
from meshd.model.operation import StartReplica
from meshd.model.runtime import MeshAddress, ReplicaSpec
from meshd.spec.model import Project, Service


def credential(secret: bytes, replica: str) -> str:
    """The token that tells the mesh that `replica` calls; 128 bits."""
    return hmac.new(secret, replica.encode(), hashlib.sha256).hexdigest()[:32]


def url_variable(service: str) -> str:
    """The name of the variable that holds a service's address."""
    return "MESH_URL_" + service.upper().replace("-", "_")


def replica_spec(
    start: StartReplica,
    project: Project | None,
    service: Service,
    gateway: MeshAddress | None,
    token_base: str,
    instance: str = "",
) -> ReplicaSpec:
    """`gateway` is where this service's network meets the mesh; without one, `token_base` is
    the replica's own URL prefix (`http://127.0.0.1:PORT/.mesh/TOKEN`), or empty for none."""
    names = [each.name for each in project.services] if project else []
    environment: dict[str, str] = {}
    hosts: Mapping[str, str] = {}
    if start.clone_of is None:
        environment["PORT"] = str(service.port)
        environment["MESH_SERVICE"], environment["MESH_REPLICA"] = service.name, start.name
        if gateway is not None:
            hosts = dict.fromkeys(names, gateway.host)
            environment |= {
                url_variable(name): f"http://{name}{_port(gateway.port)}" for name in names
            }
        elif token_base:
            environment |= {url_variable(name): f"{token_base}/{name}" for name in names}
    return ReplicaSpec(
        name=start.name,
        project=start.project,
        service=service,
        revision=start.revision,
        environment=environment,
        hosts=hosts,
        clone_of=start.clone_of,
        instance=instance,
        directory=os.path.dirname(project.source) if project and project.source else "",
    )


def start_of(job: Job) -> StartReplica:
    """A job as the start of a replica, which it is told as much as."""
    return StartReplica(
        name=job.id,
        project=job.project,
        service=job.service,
        revision=job.revision,
        cause=job.cause,
    )


def as_job(
    told: ReplicaSpec, command: tuple[str, ...], environment: Mapping[str, str]
) -> ReplicaSpec:
    """The same to be run once, with a command (empty: the service's own) and environment of its
    own."""
    service = told.service.model_copy(
        update={
            "command": command or told.service.command,
            "environment": {**told.service.environment, **environment},
        }
    )
    return replace(told, service=service, job=True)


def _port(port: int) -> str:
    return "" if port in (0, 80) else f":{port}"
