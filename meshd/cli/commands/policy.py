"""`meshd policy`: who may call whom, held against who did."""

from pathlib import Path

import click

from meshd.api.client import Client
from meshd.cli import output
from meshd.cli.commands.down import only
from meshd.cli.session import connect, state_option, talks
from meshd.control import access_policy

PROJECT = click.option("--project", metavar="NAME", help="Where several are up.")
COLUMNS = ("service", "caller", "got through", "not covered", "last", "now")


@click.group("policy", short_help="Audit and suggest who may call whom.")
def command() -> None:
    """Who may call whom (x-mesh.allow), held against who called in the last 30 days."""


@command.command("audit")
@PROJECT
@output.output_option
@state_option
@talks
async def audit(project: str | None, as_json: bool, state: Path) -> int:
    """List the callers that the allow lists do not cover. They are refused, or, where a service
    says `audit: true`, let through and counted. Exit code 1 when there are any."""
    async with connect(state) as client:
        found = access_policy.outside(await client.policies(await _project(client, project)))
    if as_json:
        output.print_json(found)
    elif not found:
        output.say("every call was covered")
    else:
        rows = [
            (o.service, o.caller, str(o.calls), str(o.uncovered), output.clock(o.last),
             "refused" if o.refused else "let through")
            for o in found
        ]  # fmt: skip
        output.print_table(COLUMNS, rows)
    return output.FAILED if found else output.OK


@command.command("suggest")
@PROJECT
@state_option
@talks
async def suggest(project: str | None, state: Path) -> int:
    """Propose allow lists from the calls that were seen, as a Compose file to look through and
    to merge over the own one: `meshd deploy -f compose.yml -f allow.yml`."""
    async with connect(state) as client:
        name = await _project(client, project)
        found = await client.policies(name)
    click.echo(access_policy.suggestion(name, found, output.clock), nl=False)
    return output.OK


async def _project(client: Client, project: str | None) -> str:
    if project is not None:
        return project
    return only(sorted({service.project for service in (await client.status()).services}))
