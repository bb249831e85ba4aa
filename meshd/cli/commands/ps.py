"""`meshd ps`: list services, replicas or projects."""

from pathlib import Path

import click

from meshd.api.dto import ServiceStatus, Status
from meshd.cli import output, tables, watching
from meshd.cli.options import (
    project_option,
    service_argument,
    state_option,
    watch_option,
    wide_output_option,
)
from meshd.cli.session import connect, find_service, run_async
from meshd.cli.watching import Table
from meshd.model.errors import NotFound
from meshd.spec.errors import suggest


@click.command("ps", short_help="List services or replicas.")
@service_argument(required=False)
@click.option("-r", "--replicas", is_flag=True, help="List replicas instead of services.")
@project_option("Only services of this project.")
@click.option("-a", "--all", "everything", is_flag=True, help="List the daemon's projects as well.")
@watch_option
@wide_output_option
@state_option
@run_async
async def command(
    service: str | None,
    replicas: bool,
    project: str | None,
    everything: bool,
    watch: bool,
    interval: float,
    as_json: bool,
    state: Path,
) -> int:
    """List services, or with -r their replicas.

    REPLICAS are ready/running. WANTED is the number that should run, with the limits of the
    autoscaler. The traffic figures cover the last 5 seconds. P50 to P99 are latencies until the
    end of a response, or until the beginning of an event stream. With --all, the projects that
    another meshd holds on the same engine are listed too. -o wide adds kind, revision and reach of
    services, or node and cores of replicas.
    """
    wide = output.is_wide()
    if watch and (as_json or everything):
        raise click.UsageError("--watch goes with neither --output nor --all")
    async with connect(state) as client:
        status = await client.status()
        services = select_services(status, service, project)
        if watch:

            async def read() -> Table:
                found = select_services(await client.status(), service, project)
                return _make_table(found, replicas=replicas, wide=wide)

            await watching.watch(read, interval)
            return output.OK
    if as_json:
        listed = [replica for each in services for replica in each.replicas]
        unfiltered = not (service or project)
        output.print_json(listed if replicas else status if unfiltered else services)
        return output.OK
    if everything:
        output.print_table(tables.PROJECT_COLUMNS, map(tables.project_row, status.projects))
        output.print_line("")
    output.print_table(*_make_table(services, replicas=replicas, wide=wide))
    for warning in (
        tables.runtime_warning(status),
        tables.store_warning(status),
        tables.filter_warning(status),
        tables.addresses_warning(status),
        tables.enforcement_warning(status),
        status.standby,
        tables.ending_warning(status),
    ):
        if warning:
            output.print_error(warning)
    return output.OK


def select_services(
    status: Status, service: str | None, project: str | None
) -> list[ServiceStatus]:
    """Return the services that are asked for. Raises NotFound."""
    services = [find_service(status, service)] if service else list(status.services)
    if project is not None:
        services = [each for each in services if each.project == project]
        if not services:
            known = ", ".join(each.name for each in status.projects) or "none"
            near = suggest(project, [each.name for each in status.projects])
            raise NotFound(f"no services of a project {project!r}{near}; known projects: {known}")
    return services


def _make_table(services: list[ServiceStatus], *, replicas: bool, wide: bool) -> Table:
    """Return columns and rows."""
    if not replicas:
        rows = tables.list_rows(services)
        if not wide:
            return tables.LIST_COLUMNS, rows
        more = [[each.kind, each.revision[:12], " ".join(each.reached)] for each in services]
        columns = (*tables.LIST_COLUMNS, "kind", "revision", "reached by")
        return columns, [row + extra for row, extra in zip(rows, more, strict=True)]
    listed = [replica for each in services for replica in each.replicas]
    rows = tables.replica_rows(listed)
    if not wide:
        return tables.REPLICA_COLUMNS, rows
    added = [
        [each.node, "" if each.cores is None else f"{each.cores:.2f}", str(each.managed).lower()]
        for each in listed
    ]
    shown = (*tables.REPLICA_COLUMNS, "node", "cores", "managed")
    return shown, [row + extra for row, extra in zip(rows, added, strict=True)]
