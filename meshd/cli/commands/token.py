"""`meshd token`: create, list and revoke the tokens of the API over TCP."""

import time
from pathlib import Path
from typing import Literal

import click

from meshd.cli import output
from meshd.cli.options import POSITIVE_DURATION, output_option, project_option, state_option
from meshd.cli.session import connect, run_async
from meshd.model.access import MAX_NAME, NewToken, Role, Token

COLUMNS = ("id", "name", "role", "project", "created", "by", "expires")


@click.group("token", short_help="Manage tokens for the API over TCP.")
def command() -> None:
    """Manage tokens for the API over TCP (`meshd up --api`)."""


@command.command("create", short_help="Create a token.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="view",
    show_default=True,
    help="view: read only. operate: also scale, restart, drain, run jobs, steer rollouts. admin: "
    "everything.",
)
@project_option("Only for this project.")
@click.option("--expires", type=POSITIVE_DURATION, metavar="TIME",
              help="Valid for this time, e.g. 30d. Default: until it is revoked.")  # fmt: skip
@output_option
@state_option
@run_async
async def create(
    name: str,
    role: Literal["view", "operate", "admin"],
    project: str | None,
    expires: float | None,
    as_json: bool,
    state: Path,
) -> int:
    """Create a token and print it. NAME says what it is for. It is not shown again."""
    if not 0 < len(name) <= MAX_NAME:
        raise click.UsageError(f"NAME has {len(name)} characters; expected 1 to {MAX_NAME}")
    new = NewToken(name, Role(role), project or "", expires or 0.0)
    async with connect(state) as client:
        made = await client.create_token(new)
    if as_json:
        output.print_json(made)
    else:
        output.print_line(made.secret)
    return output.OK


@command.command("ls", short_help="List the tokens.")
@output_option
@state_option
@run_async
async def list_tokens(as_json: bool, state: Path) -> int:
    """List the tokens, without their secrets."""
    async with connect(state) as client:
        found = await client.tokens()
    if as_json:
        output.print_json(found)
    else:
        now = time.time()
        output.print_table(COLUMNS, [token_row(token, now) for token in found])
    return output.OK


def token_row(token: Token, now: float) -> list[str]:
    """Return a token as a row of the table; `now`: Unix time."""
    expires = output.format_time(token.expires) if token.expires else "never"
    return [
        token.id,
        token.name,
        token.role,
        token.project or "all",
        output.format_time(token.created),
        token.who,
        "expired" if 0 < token.expires <= now else expires,
    ]


@command.command("revoke", short_help="Revoke tokens.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@state_option
@run_async
async def revoke(ids: tuple[str, ...], state: Path) -> int:
    """Revoke tokens by their id; they are refused from then on."""
    async with connect(state) as client:
        for id in ids:
            await client.revoke_token(id)
            output.print_line(f"{id}: revoked")
    return output.OK
