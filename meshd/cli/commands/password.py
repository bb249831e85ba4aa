"""`meshd password`: hash a password for `basic_auth` of a route."""

import sys
from typing import Final

import bcrypt
import click

from meshd.cli import output
from meshd.spec.reader.filter_values import check_users

LONGEST: Final = 72
"""Bytes of a password that bcrypt reads."""


@click.command("password", short_help="Hash a password for basic_auth of a route.")
@click.argument("name")
def command(name: str) -> None:
    """Ask for a password, or read it from standard input, and print NAME:HASH.

    The line belongs into the file of `basic_auth`, or into its list of users; in a Compose file
    each $ is written as $$.
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or len(password.encode()) > LONGEST or "\0" in password:
        raise click.UsageError(f"expected a password of 1 to {LONGEST} bytes")
    line = f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()}"
    try:
        check_users((line,))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    output.print_line(line)
