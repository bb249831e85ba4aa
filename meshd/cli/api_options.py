"""Options of `meshd up` about the API over TCP; they become one `TcpSettings`."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from meshd.api.tcp_address import TcpSettings, find_tcp_problem

C = TypeVar("C", bound=Callable[..., Any])


def api_options(command: C) -> Callable[..., Any]:
    """`--api` and its companions, as `api`: None if the API is not served over TCP."""

    @click.option(
        "--api",
        "api_address",
        metavar="ADDR",
        help="Also serve the API at this HOST:PORT, to clients with a token (`meshd token "
        "create`). Needs --api-cert unless it is a loopback address.",
    )
    @click.option("--api-cert", metavar="FILE", help="Certificate for --api (PEM, with its chain).")
    @click.option(
        "--api-key", metavar="FILE", help="Private key of --api-cert. Default: in its file."
    )
    @click.option(
        "--api-client-ca",
        metavar="FILE",
        help="Also accept client certificates of these authorities at --api, whose organization "
        "(O) is meshd:view, meshd:operate or meshd:admin.",
    )
    @click.option(
        "--api-host",
        multiple=True,
        metavar="NAME",
        help="Another host name of --api. Those of the certificate are known.",
    )
    @functools.wraps(command)
    def run(
        *arguments: Any,
        api_address: str | None,
        api_cert: str | None,
        api_key: str | None,
        api_client_ca: str | None,
        api_host: tuple[str, ...],
        **options: Any,
    ) -> Any:
        settings = None
        if api_address:
            files = [os.path.abspath(each) if each else "" for each in (api_cert, api_key)]
            ca = os.path.abspath(api_client_ca) if api_client_ca else ""
            settings = TcpSettings(api_address, files[0], files[1], ca, api_host)
            problem = find_tcp_problem(settings)
            if problem is not None:
                raise click.UsageError(problem)
        elif api_cert or api_key or api_client_ca or api_host:
            raise click.UsageError(
                "--api-cert, --api-key, --api-client-ca and --api-host need --api"
            )
        return command(*arguments, api=settings, **options)

    return run
