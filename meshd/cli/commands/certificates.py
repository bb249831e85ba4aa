"""`meshd certificates`: show the TLS certificates that the proxy serves."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import click
import msgspec

from meshd.cli import output
from meshd.cli.options import output_option, state_option
from meshd.cli.session import connect, run_async
from meshd.model.certificate import CertificateStatus

ANSWER_SECONDS: Final = 10.0
"""Seconds for a proxy to answer; it takes milliseconds."""
NONE: Final = (
    "no certificates: no listener has files of one, and neither a route with tls: auto nor "
    "tls.acme.domains names a host to get one for"
)
COLUMNS = ("names", "state", "source", "expires", "renewal", "last error")


@click.command("certificates", short_help="Show TLS certificates, their renewal and errors.")
@click.option("--admin", metavar="ADDR", help="Ask `meshd proxy` at the address of its --admin.")
@click.option("--retry", metavar="HOST", help="Try at once to get the certificate of a host.")
@output_option
@state_option
@run_async
async def command(admin: str | None, retry: str | None, as_json: bool, state: Path) -> int:
    """Show the TLS certificates that the proxy serves, and those it tries to get.

    The last column is the reason why the last attempt failed, as the certificate authority gave it.
    Exit code 1 if a certificate has expired or if there is none for a name. After a failure the
    next attempt waits, because authorities limit their number; with --retry it does not. For
    `meshd proxy`, SIGHUP does the same for all hosts.
    """
    if admin is not None:
        if retry is not None:
            raise click.UsageError("--admin and --retry exclude each other; send SIGHUP instead")
        found = await _ask_proxy(admin)
        if found is None:
            return output.NO_DAEMON
    else:
        async with connect(state) as client:
            if retry is not None:
                await client.retry_certificate(retry.lower())
                output.print_line(f"{retry}: trying again; see `meshd certificates`")
                return output.OK
            found = await client.certificates()
    if as_json:
        output.print_json(found)
    elif not found:
        output.print_line(NONE)
    else:
        output.print_table(COLUMNS, [certificate_row(each, time.time()) for each in found])
    usable = all(each.expires_at > time.time() for each in found)
    return output.OK if usable else output.FAILED


async def _ask_proxy(admin: str) -> Sequence[CertificateStatus] | None:
    """Return the certificates of a standalone proxy; None, after a message, if it does not
    answer."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(f"http://{admin}/certificates") as response,
        ):
            return msgspec.json.decode(await response.read(), type=list[CertificateStatus])
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
        reason = str(error) or type(error).__name__
        output.print_error(f"meshd: no proxy answers at {admin}: {reason}")
        return None


def certificate_row(found: CertificateStatus, now: float) -> tuple[str, ...]:
    """Return the row of one certificate."""
    return (
        ", ".join(found.names),
        found.state,
        found.origin if found.source == "file" else f"acme {found.origin.split('/')[2]}",
        _when(found.expires_at, now),
        _when(found.retry_at or found.renew_at, now),
        found.error,
    )


def _when(at: float, now: float) -> str:
    """Return a time with its distance from now; empty if there is none."""
    if not at:
        return ""
    days = (at - now) / 86400.0
    unit = f"{days:.0f} d" if abs(days) >= 2 else f"{days * 24:.1f} h"
    return (
        f"{output.format_time(at)} (in {unit})" if days >= 0 else f"{output.format_time(at)} (past)"
    )
