"""`meshd ui`: open the web page, signed in."""

import os
from pathlib import Path
from typing import Literal

import click

from meshd.cli import output
from meshd.cli.options import state_option
from meshd.cli.session import connect, run_async
from meshd.model.access import NewSignInLink, Role


@click.command("ui", short_help="Open the web page.")
@click.option("--print", "only_print", is_flag=True, help="Print the link instead of opening it.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="operate",
    show_default=True,
    help="What the page may do. view: read only. operate: also scale, restart, drain, run jobs, "
    "steer rollouts. admin: everything.",
)
@state_option
@run_async
async def command(only_print: bool, role: Literal["view", "operate", "admin"], state: Path) -> int:
    """Print a link to the web page, and open it if there is a display. The link signs in once,
    within two minutes; the session lasts 12 hours (`meshd token ls` lists it)."""
    async with connect(state) as client:
        link = await client.sign_in_link(NewSignInLink(Role(role)))
    output.print_line(link.url)
    if not only_print and has_display() and click.launch(link.url):
        output.print_error("meshd: no browser could be started; open the link yourself")
    return output.OK


def has_display() -> bool:
    """Whether a browser can show a window."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
