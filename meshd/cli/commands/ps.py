"""`meshd ps`: what runs."""

from pathlib import Path

import click

from meshd.cli import output, tables
from meshd.cli.session import complete_service, connect, find_service, state_option, talks
from meshd.model.errors import NotFound


@click.command("ps", short_help="Show services or replicas.")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-r", "--replicas", is_flag=True, help="One line a replica.")
@click.option("--project", metavar="NAME", help="Only what is of this project.")
@click.option("-a", "--all", "everything", is_flag=True, help="The projects first, one line each.")
@output.output_option
@state_option
@talks
async def command(
    service: str | None,
    replicas: bool,
    project: str | None,
    everything: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Show services, or with -r their replicas: REPLICAS are those ready of those running,
    WANTED how many there should be and may be, and the figures are of the last 5 seconds. P50 to
    P99 run to the end of an answer; of a stream of events, to its beginning. With --all, also
    the projects of the daemon, those that another meshd on the same engine holds included."""
    async with connect(state) as client:
        status = await client.status()
    services = [find_service(status, service)] if service else list(status.services)
    if project is not None:
        services = [each for each in services if each.project == project]
        if not services:
            known = ", ".join(each.name for each in status.projects) or "none"
            raise NotFound(f"nothing of a project {project} is up here; known: {known}")
    shown = [replica for each in services for replica in each.replicas]
    if as_json:
        whole = not (service or project)
        output.print_json(shown if replicas else status if whole else services)
        return output.OK
    if everything:
        output.print_table(tables.PROJECT_COLUMNS, map(tables.project_row, status.projects))
        output.say("")
    if replicas:
        output.print_table(tables.REPLICA_COLUMNS, tables.replica_rows(shown))
    else:
        output.print_table(tables.LIST_COLUMNS, tables.list_rows(services))
    if unfiltered := tables.unfiltered(status):
        output.complain(unfiltered)
    return output.OK
