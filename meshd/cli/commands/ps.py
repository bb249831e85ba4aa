"""`meshd ps`: list services, replicas or projects."""

from pathlib import Path

import click

from meshd.cli import output, tables
from meshd.cli.options import output_option, project_option, service_argument, state_option
from meshd.cli.session import connect, find_service, run_async
from meshd.model.errors import NotFound


@click.command("ps", short_help="List services or replicas.")
@service_argument(required=False)
@click.option("-r", "--replicas", is_flag=True, help="List replicas instead of services.")
@project_option("Only services of this project.")
@click.option("-a", "--all", "everything", is_flag=True, help="List the daemon's projects as well.")
@output_option
@state_option
@run_async
async def command(
    service: str | None,
    replicas: bool,
    project: str | None,
    everything: bool,
    as_json: bool,
    state: Path,
) -> int:
    """List services, or with -r their replicas.

    REPLICAS are ready/running. WANTED is the number that should run, with the limits of the
    autoscaler. The traffic figures cover the last 5 seconds. P50 to P99 are latencies until the
    end of a response, or until the beginning of an event stream. With --all, the projects that
    another meshd holds on the same engine are listed too.
    """
    async with connect(state) as client:
        status = await client.status()
    services = [find_service(status, service)] if service else list(status.services)
    if project is not None:
        services = [each for each in services if each.project == project]
        if not services:
            known = ", ".join(each.name for each in status.projects) or "none"
            raise NotFound(f"no services of a project {project!r}; known projects: {known}")
    listed = [replica for each in services for replica in each.replicas]
    if as_json:
        unfiltered = not (service or project)
        output.print_json(listed if replicas else status if unfiltered else services)
        return output.OK
    if everything:
        output.print_table(tables.PROJECT_COLUMNS, map(tables.project_row, status.projects))
        output.print_line("")
    if replicas:
        output.print_table(tables.REPLICA_COLUMNS, tables.replica_rows(listed))
    else:
        output.print_table(tables.LIST_COLUMNS, tables.list_rows(services))
    for warning in (
        tables.runtime_warning(status),
        tables.store_warning(status),
        tables.filter_warning(status),
        tables.addresses_warning(status),
        tables.enforcement_warning(status),
    ):
        if warning:
            output.print_error(warning)
    return output.OK
