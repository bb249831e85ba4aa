"""`meshd open`: open a service in the browser."""

from pathlib import Path

import click

from meshd.api.dto import ServiceStatus, Status
from meshd.cli import output
from meshd.cli.options import service_argument, state_option
from meshd.cli.session import connect, find_service, run_async


@click.command("open", short_help="Open a service in the browser.")
@service_argument()
@click.option("--print", "only_print", is_flag=True, help="Print the URL instead of opening it.")
@state_option
@run_async
async def command(service: str, only_print: bool, state: Path) -> int:
    """Open the first route or published port of SERVICE in the browser, and print its URL."""
    async with connect(state) as client:
        status = await client.status()
    found = find_service(status, service)
    url = find_url(status, found)
    if url is None:
        output.print_error(
            f"meshd: {found.name} has no route and publishes no port; add a route under x-mesh, "
            "or ports"
        )
        return output.FAILED
    output.print_line(url)
    if not only_print and click.launch(url):
        output.print_error("meshd: no browser could be started; open the URL yourself")
    return output.OK


def find_url(status: Status, service: ServiceStatus) -> str | None:
    """Return the URL of a service for this machine; None if it cannot be reached from outside."""
    for address in status.proxy:
        if address.startswith("unix:") or not service.routes:
            continue
        route = next((each for each in service.routes if " (" not in each), service.routes[0])
        route = route.partition(" (")[0]
        host, slash, path = route.partition("/")
        own, _, port = address.rpartition(":")
        if not host or "*" in host:
            host = "localhost" if own in ("0.0.0.0", "[::]", "127.0.0.1", "[::1]", "") else own
        scheme = "https" if port == "443" else "http"
        shown = "" if port in ("80", "443") else f":{port}"
        return f"{scheme}://{host}{shown}{slash}{path}"
    for published in service.ports:
        host_part = published.partition("->")[0].partition(":")
        port = published.partition("->")[0].rpartition(":")[2].partition("/")[0]
        if port.isdecimal():
            own = host_part[0] if host_part[1] else ""
            host = own if own and own not in ("0.0.0.0", "127.0.0.1") else "localhost"
            return f"http://{host}:{port}/"
    return None
