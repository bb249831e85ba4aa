"""`meshd policy`: compare who may call a service with who called it.

The comparison is made by `meshd.control.access_policy` from the policies that the daemon sends.
"""

from pathlib import Path

import click

from meshd.api.client import Client
from meshd.cli import output
from meshd.cli.commands.down import only_project
from meshd.cli.options import output_option, project_option, state_option
from meshd.cli.session import connect, run_async
from meshd.control import access_policy

COLUMNS = ("service", "caller", "got through", "not covered", "last", "now")
_project = project_option("Project. Required if several are up.")


@click.group("policy", short_help="Check and suggest who may call which service.")
def command() -> None:
    """Compare who may call a service (x-mesh.allow) with who called it in the last 30 days."""


@command.command("audit", short_help="List callers that the allow lists do not cover.")
@_project
@output_option
@state_option
@run_async
async def audit(project: str | None, as_json: bool, state: Path) -> int:
    """List the callers that the allow lists do not cover.

    Their calls are refused; with `audit: true` at the service they are let through and counted.
    Exit code 1 if there are any.
    """
    async with connect(state) as client:
        name = project or await _only_project(client)
        found = access_policy.uncovered_callers(await client.policies(name))
    if as_json:
        output.print_json(found)
    elif not found:
        output.print_line("the allow lists cover every caller")
    else:
        rows = [
            (each.service, each.caller, str(each.calls), str(each.uncovered),
             output.format_time(each.last), "refused" if each.refused else "let through")
            for each in found
        ]  # fmt: skip
        output.print_table(COLUMNS, rows)
    return output.FAILED if found else output.OK


@command.command("suggest", short_help="Suggest allow lists from the calls that were seen.")
@_project
@state_option
@run_async
async def suggest(project: str | None, state: Path) -> int:
    """Suggest allow lists from the calls that were seen.

    Prints a Compose file. Review it, then merge it over your own: `meshd deploy -f compose.yml -f
    allow.yml`.
    """
    async with connect(state) as client:
        name = project or await _only_project(client)
        found = await client.policies(name)
    click.echo(access_policy.suggest_allow_lists(name, found, output.format_time), nl=False)
    return output.OK


async def _only_project(client: Client) -> str:
    return only_project(sorted({each.project for each in (await client.status()).services}))
