"""The spec that a runtime gets for a replica or a job: environment, host names, credential. Pure.

Called by `replica_spec_builder`. On a runtime with networks, services have host names
(`http://payments`), and the network of a call identifies the caller. Elsewhere each replica has a
credential in its URLs, derived from the store's secret and its name, so nothing has to be stored.
"""

import hashlib
import hmac
import os.path
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from meshd.model.job import Job, adapt_to_step
from meshd.model.operation import StartReplica
from meshd.model.runtime import MeshAddress, ReplicaSpec
from meshd.spec.model import InitContainer, Project, Service
from meshd.spec.model.service import url_variable


def credential(secret: bytes, replica: str) -> str:
    """Return the token (128 bits, hexadecimal) that identifies calls of `replica`."""
    return hmac.new(secret, replica.encode(), hashlib.sha256).hexdigest()[:32]


def replica_spec(
    start: StartReplica,
    project: Project | None,
    service: Service,
    gateway: MeshAddress | None,
    token_base: str,
    instance: str = "",
    virtual: Mapping[str, str] = MappingProxyType({}),
) -> ReplicaSpec:
    """Return the spec of a replica.

    - `gateway`: address of the mesh on this service's network; None on a runtime without networks.
    - `token_base`: used without a gateway: the replica's own URL prefix
      (`http://127.0.0.1:PORT/.mesh/TOKEN`); empty: no URLs.
    - `instance`: id of this mesh.
    - `virtual`: virtual addresses by name, for the hosts file. A name without one has the gateway,
      or in a plain service is left to the runtime's name resolution.
    """
    names = [each.name for each in project.services if not each.plain] if project else []
    environment: dict[str, str] = {}
    hosts: Mapping[str, str] = {}
    if start.clone_of is None and not service.plain:
        environment["PORT"] = service.environment.get("PORT", str(service.port))
        environment["MESH_SERVICE"], environment["MESH_REPLICA"] = service.name, start.name
        if gateway is not None:
            hosts = dict.fromkeys(names, gateway.host)
            environment |= {
                url_variable(name): f"http://{name}{_port_suffix(gateway.port)}" for name in names
            }
        elif token_base:
            environment |= {url_variable(name): f"{token_base}/{name}" for name in names}
    if start.clone_of is None:
        hosts = {**hosts, **virtual}
    return ReplicaSpec(
        name=start.name,
        project=start.project,
        service=service,
        revision=start.revision,
        environment=environment,
        hosts=hosts,
        clone_of=start.clone_of,
        instance=instance,
        attempt=start.attempt,
        avoid=start.avoid,
        directory=os.path.dirname(project.source) if project and project.source else "",
    )


def start_of(job: Job) -> StartReplica:
    """Return the start of a replica that gets the same names and addresses as the job."""
    return StartReplica(
        name=job.id,
        project=job.project,
        service=job.service,
        revision=job.revision,
        cause=job.cause,
    )


def as_job(spec: ReplicaSpec, job: Job) -> ReplicaSpec:
    """Return `spec` as a container that runs once, with the command and environment of `job`."""
    return replace(spec, service=job.adapt(spec.service), job=True)


def as_init_container(spec: ReplicaSpec, step: InitContainer, number: int) -> ReplicaSpec:
    """Return the container of a `pre_start` step that runs before one replica."""
    name = init_name(spec.name, number)
    return replace(spec, name=name, service=adapt_to_step(spec.service, step), job=True)


def init_name(replica: str, number: int) -> str:
    """Return the name of the container of a `pre_start` step; `number` counts from 1."""
    return f"{replica}-init{number}"


def _port_suffix(port: int) -> str:
    return "" if port in (0, 80) else f":{port}"
