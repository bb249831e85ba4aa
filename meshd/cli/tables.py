"""Rows and columns of the tables that show services, replicas, projects and events.

Used by `ps`, `top`, `events` and `up`; `output` prints them.
"""

import time
from collections.abc import Sequence
from typing import Final

from meshd.api.dto import ProjectStatus, ReplicaStatus, ServiceStatus, Status
from meshd.cli.output import format_bytes, format_seconds, format_time
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, MeshThen

SERVICE_COLUMNS: Final = (
    "service", "state", "replicas", "wanted", "rps", "in flight", "p50", "p95", "p99",
    "err/s", "last",
)  # fmt: skip
LIST_COLUMNS: Final = (*SERVICE_COLUMNS[:4], "routes", *SERVICE_COLUMNS[4:])
"""Columns of `ps`. `top` leaves out the routes, which do not change, to save width."""
ROUTES_SHOWN: Final = 2
"""Routes of a service in its row; more would make the table too wide."""
PROJECT_COLUMNS: Final = ("project", "state", "services", "ready", "wanted", "deployed", "by", "")
REPLICA_COLUMNS: Final = (
    "replica", "service", "revision", "phase", "address", "for", "restarts", "in flight",
    "cpu", "memory", "reason",
)  # fmt: skip
EVENT_COLUMNS: Final = ("time", "event", "service", "replica", "what")


THEN_COLUMNS: Final = (
    "service", "time", "replicas", "wanted", "rps", "in flight", "p50", "p95", "p99", "err/s",
    "cores",
)  # fmt: skip


def then_rows(found: MeshThen) -> list[list[str]]:
    """Return one row for each service at a time in the past."""
    return [
        [
            each.service,
            output_time(each.point),
            str(each.point.ready),
            str(each.point.desired),
            f"{each.point.rps:.1f}",
            f"{each.point.in_flight:.1f}",
            format_seconds(each.point.p50),
            format_seconds(each.point.p95),
            format_seconds(each.point.p99),
            f"{each.point.errors:.1f}",
            f"{each.point.cores:.2f}",
        ]
        for each in found.services
    ]


def output_time(point: HistoryPoint) -> str:
    """Return the time that a point is about, and its length."""
    return f"{format_time(point.at)} +{point.step} s"


def service_rows(services: Sequence[ServiceStatus]) -> list[list[str]]:
    """Return one row per service, with the project if there are several."""
    several = len({service.project for service in services}) > 1
    return [_service_row(service, several) for service in services]


def list_rows(services: Sequence[ServiceStatus]) -> list[list[str]]:
    """Return the same rows with the published ports and public routes; `-` for a service that has
    none."""
    return [
        [*row[:4], _routes((*service.ports, *service.routes)), *row[4:]]
        for row, service in zip(service_rows(services), services, strict=True)
    ]


def _routes(routes: Sequence[str]) -> str:
    more = len(routes) - ROUTES_SHOWN
    listed = " ".join(routes[:ROUTES_SHOWN])
    return f"{listed} +{more}" if more > 0 else listed or "-"


def _service_row(service: ServiceStatus, with_project: bool) -> list[str]:
    name = f"{service.project}/{service.name}" if with_project else service.name
    by_hand = " by hand" if service.override is not None else ""
    adopted = sum(not replica.managed for replica in service.replicas)
    fixed = service.minimum == service.maximum == service.desired
    return [
        name,
        service.state,
        f"{service.ready}/{service.running}" + (f" ({adopted} adopted)" if adopted else ""),
        str(service.desired)
        + ("" if fixed else f" ({service.minimum}-{service.maximum})")
        + by_hand,
        f"{service.rps:.1f}",
        f"{service.in_flight:.1f}" + (f" +{service.parked} parked" if service.parked else ""),
        format_seconds(service.p50),
        format_seconds(service.p95),
        format_seconds(service.p99),
        f"{service.errors_per_second:.1f}",
        service.last,
    ]


def replica_rows(replicas: Sequence[ReplicaStatus]) -> list[list[str]]:
    """Return one row per replica, with the project if there are several."""
    now = time.time()
    several = len({replica.service.partition("/")[0] for replica in replicas}) > 1
    return [
        [
            replica.name,
            replica.service if several else replica.service.rpartition("/")[2],
            replica.revision[:12],
            replica.phase + (" ejected" if replica.ejected else ""),
            replica.address,
            format_seconds(max(0.0, now - replica.since)) if replica.since else "",
            str(replica.restarts),
            str(replica.in_flight),
            "" if replica.cpu is None else f"{replica.cpu:.0f} %",
            format_bytes(replica.memory),
            replica.reason if replica.managed else f"adopted {replica.reason}".rstrip(),
        ]
        for replica in replicas
    ]


def project_row(project: ProjectStatus) -> list[str]:
    """Return the row of a project."""
    return [
        project.name,
        project.state,
        str(project.services),
        str(project.ready),
        str(project.desired),
        format_time(project.at) if project.at else "",
        project.who,
        project.detail,
    ]


def event_row(event: Event) -> list[str]:
    """Return the row of an event."""
    service = f"{event.project}/{event.service}" if event.service else event.project
    return [format_time(event.at), event.kind, service, event.replica, event.text]


def event_line(event: Event) -> str:
    """Return an event as a single line, for a stream."""
    when, kind, service, replica, text = event_row(event)
    about = replica or service
    return f"{when}  {kind:<18}  {about + '  ' if about else ''}{text}"


def daemon_line(status: Status) -> str:
    """Return one line about the daemon as a whole."""
    state = "" if status.runtime_state == "ok" else f" ({status.runtime_state})"
    addresses = ", ".join(status.proxy) or "no address yet"
    return (
        f"meshd {status.version} · runtime {status.runtime}{state} · {len(status.workers)} workers"
        f" · listening on {addresses} · generation {status.generation[0]}.{status.generation[1]}"
    )


def runtime_warning(status: Status) -> str | None:
    """Return a warning if the runtime does not answer; otherwise None."""
    if status.runtime_state == "ok":
        return None
    return (
        f"warning: the {status.runtime} runtime {status.runtime_state}; meshd changes nothing "
        "until it does"
    )


def store_warning(status: Status) -> str | None:
    """Return a warning if the state cannot be written; otherwise None."""
    if status.store_state == "ok":
        return None
    return f"warning: {status.store_state}; replicas are replaced, but nothing else is changed"


def ending_warning(status: Status) -> str | None:
    """Return a warning if the daemon ends; otherwise None."""
    return "warning: this daemon is ending; it accepts no deployment" if status.ending else None


def kind_lines(services: Sequence[ServiceStatus]) -> list[str]:
    """Return one line for each service: what it is, why, and how it is reached."""
    width = max((len(service.name) for service in services), default=0)
    return [
        f"{service.name:{width}}  {service.kind} ({service.why}): {', '.join(service.reached)}"
        for service in services
        if service.kind
    ]


def addresses_warning(status: Status) -> str | None:
    """Return a warning if services have no virtual addresses although they should; otherwise
    None."""
    state, _, reason = status.addresses.partition(": ")
    if state == "missing":
        return (
            f"warning: the networks {reason} have no addresses for the mesh, so that names of "
            "mesh-managed services lead to their replicas directly there; for a network that an "
            "earlier version created, meshd down and up create it again; one that is external, or "
            "whose ip_range covers its subnet, has none"
        )
    if state != "off":
        return None
    return (
        "warning: services have no virtual addresses, so that the mesh only listens on port 80, "
        f"and plain services reach replicas directly: {reason}"
    )


def enforcement_warning(status: Status) -> str | None:
    """Return a warning if `x-mesh.enforce` of a service has no effect; otherwise None."""
    state, _, reason = status.enforcement.partition(": ")
    if state != "off":
        return None
    return (
        "warning: x-mesh.enforce has no effect; containers of a shared network can connect past "
        f"the mesh: {reason}"
    )


def certificate_lines(found: Sequence[CertificateStatus]) -> list[str]:
    """Return a line for each certificate that does not exist yet or could not be renewed."""
    lines = []
    for each in found:
        names = ", ".join(each.names)
        if each.state == "pending":
            lines.append(f"certificate of {names}: ordered; see `meshd certificates`")
        elif each.state == "expired":
            lines.append(f"warning: the certificate of {names} has expired: {each.error}")
        elif each.state == "failing" and each.expires_at:
            lines.append(f"warning: the certificate of {names} was not renewed: {each.error}")
        elif each.state == "failing":
            lines.append(f"warning: no certificate for {names}: {each.error}")
    return lines


def filter_warning(status: Status) -> str | None:
    """Return a warning if the containers' access to the host is not filtered although it should
    be; otherwise None."""
    state, _, reason = status.filter.partition(": ")
    if state != "off":
        return None
    return f"warning: containers' access to the host is not filtered: {reason}"
