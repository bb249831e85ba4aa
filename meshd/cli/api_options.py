"""Options of `meshd up` about the API over TCP and the web page."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from meshd.api.tcp_address import TcpSettings, find_tcp_problem
from meshd.ui.settings import ADDRESS, PageSettings

C = TypeVar("C", bound=Callable[..., Any])


def api_options(command: C) -> Callable[..., Any]:
    """`--api`, `--ui` and their companions, as `api` and `ui`: None if the API is not served over
    TCP, or the web page is off."""

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
        help="Another host name of --api and --ui. Those of the certificate are known.",
    )
    @click.option(
        "--ui",
        "page_address",
        metavar="ADDR",
        help=f"Serve the web page at this HOST:PORT; `meshd ui` opens it. Needs --api-cert unless "
        f"it is a loopback address. Default: {ADDRESS}, or a free port if that is in use.",
    )
    @click.option("--no-ui", is_flag=True, help="Serve no web page.")
    @functools.wraps(command)
    def run(
        *arguments: Any,
        api_address: str | None,
        api_cert: str | None,
        api_key: str | None,
        api_client_ca: str | None,
        api_host: tuple[str, ...],
        page_address: str | None,
        no_ui: bool,
        **options: Any,
    ) -> Any:
        settings = None
        files = [os.path.abspath(each) if each else "" for each in (api_cert, api_key)]
        if page_address and no_ui:
            raise click.UsageError("--ui and --no-ui exclude each other")
        page = None if no_ui else read_page_settings(page_address, files, api_host)
        if api_address:
            ca = os.path.abspath(api_client_ca) if api_client_ca else ""
            settings = TcpSettings(api_address, files[0], files[1], ca, api_host)
            problem = find_tcp_problem(settings)
            if problem is not None:
                raise click.UsageError(problem)
        elif api_client_ca:
            raise click.UsageError("--api-client-ca needs --api")
        elif (api_cert or api_key or api_host) and not page_address:
            raise click.UsageError("--api-cert, --api-key and --api-host need --api or --ui")
        return command(*arguments, api=settings, ui=page, **options)

    return run


def read_page_settings(
    address: str | None, files: list[str], names: tuple[str, ...]
) -> PageSettings:
    """Return where the web page is served: at the address of --ui, with the certificate and key
    `files`, or at the default address. Raises click.UsageError."""
    if not address:
        return PageSettings(TcpSettings(ADDRESS, option="--ui"))
    tcp = TcpSettings(address, files[0], files[1], names=names, option="--ui")
    problem = find_tcp_problem(tcp)
    if problem is not None:
        raise click.UsageError(problem)
    return PageSettings(tcp, strict=True)
