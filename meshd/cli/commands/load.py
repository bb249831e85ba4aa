"""`meshd node load`: copy images to the engines of nodes, where no registry serves them."""

from contextlib import nullcontext
from typing import Final

import click
from rich.live import Live
from rich.table import Table

from meshd.cli import output
from meshd.cli.bars import Bar, draw_bars
from meshd.cli.options import output_option
from meshd.cli.session import run_async
from meshd.model.errors import Rejected
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.swarm.setup import hosts as setup
from meshd.runtime.swarm.setup.images import copy_image, read_image

MEGABYTE: Final = 1_000_000
"""Bytes; the Docker client counts in decimal megabytes."""


@click.command("load", short_help="Copy images to nodes, without a registry.")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--image", "images", metavar="IMAGE", multiple=True, required=True, help="Name; repeatable."
)
@click.option(
    "--from",
    "source_name",
    metavar="HOST",
    default=setup.THIS_ENGINE,
    show_default=True,
    help="The engine that has the images.",
)
@output_option
@run_async
async def command(
    hosts: tuple[str, ...], images: tuple[str, ...], source_name: str, as_json: bool
) -> int:
    """Copy images from this engine to the engine of each HOST: ssh://[USER@]HOST, tcp://HOST:PORT,
    unix:///PATH, or the name of a Docker context. A host that has an image already is passed over,
    so that the command can be repeated.
    """
    names = list(dict.fromkeys(hosts))
    failed = False
    try:
        async with setup.open_hosts([source_name, *names]) as engines:
            source, *targets = engines
            for image in images:
                found = await read_image(source, image)
                if found is None:
                    raise Rejected(f"{source.name} has no image {image}; pull or build it there")
                size = int(found.get("Size") or 0)
                for target in targets:
                    failed |= not await _copy(source, target, image, size, as_json)
    except RuntimeFailure as failure:
        raise Rejected(str(failure)) from failure
    return output.FAILED if failed else output.OK


async def _copy(
    source: setup.Host, target: setup.Host, image: str, size: int, as_json: bool
) -> bool:
    """Copy one image to one host, and print the outcome. Return whether the host has it."""

    def draw(sent: int) -> Table:
        done = min(sent, size)  # the archive is a little larger than the image
        text = f"{image} ({done / MEGABYTE:.1f} of {size / MEGABYTE:.1f} MB)"
        return draw_bars([Bar(target.name, done, size, text)])

    shown = output.on_terminal() and not as_json
    live = Live(draw(0), console=output.console(), transient=True) if shown else None
    try:
        with live or nullcontext():
            update = live.update if live is not None else None
            copied = await copy_image(
                source, target, image, lambda sent: update(draw(sent)) if update else None
            )
    except RuntimeFailure as failure:
        output.print_error(f"meshd: {failure}")
        return False
    if as_json:
        output.print_json_line({"host": target.name, "image": image, "copied": copied})
    else:
        verb = f"loaded {image} ({size / MEGABYTE:.1f} MB)" if copied else f"has {image} already"
        output.print_line(f"{target.name}: {verb}")
    return True
