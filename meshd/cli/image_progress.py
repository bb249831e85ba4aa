"""Show the images that are pulled and built while a deployment is being prepared.

Used by `up`, `deploy` and `rollout undo`, before `deploy_progress` shows the replicas.
"""

import asyncio
import contextlib
import re
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from rich.live import Live

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import ImageStatus
from meshd.cli import output
from meshd.cli.bars import Bar, draw_bars

POLL_SECONDS: Final = 0.5
"""Seconds between two requests for the progress."""
REPEAT_SECONDS: Final = 10.0
"""Seconds between two lines about the same image, where lines are not redrawn."""
REFRESH_PER_SECOND: Final = 4
"""Redraws per second of the live display."""
MEGABYTE: Final = 1_000_000
"""Bytes; registries and the Docker client count in decimal megabytes."""
_STEPS: Final = re.compile(r"\b(\d+)/(\d+)(?= :|\])")
"""Which step of a build: `Step 2/5 : RUN …` of the engine, `#7 [2/5] RUN …` of BuildKit."""
T = TypeVar("T")


def describe_image(image: ImageStatus) -> str:
    """Return the progress of one image in one line."""
    words = f"{'pulling' if image.action == 'pull' else 'building'} {image.image}"
    details = [image.detail] if image.detail else []
    if image.total:
        done, total = image.current / MEGABYTE, image.total / MEGABYTE
        details.append(f"{done:.1f} of {total:.1f} MB")
    return f"{image.service}: {words}" + (f" ({', '.join(details)})" if details else "")


def image_bar(image: ImageStatus) -> Bar:
    """Return the bar of one image: of the bytes known so far, or of the steps of a build."""
    steps = _STEPS.search(image.detail) if image.action == "build" else None
    done, total = map(int, steps.groups()) if steps else (image.current, image.total)
    return Bar(image.service, done, total, describe_image(image).partition(": ")[2])


class ImageLines:
    """The lines to print about images: one when an image appears, then one every few seconds if
    its progress has changed."""

    def __init__(self) -> None:
        self._printed: dict[tuple[str, float], tuple[float, str]] = {}

    def new_lines(self, images: Sequence[ImageStatus], now: float) -> list[str]:
        """Return the lines to print at `now`, in seconds of any clock."""
        lines = []
        for image in images:
            key, text = (image.image, image.since), describe_image(image)
            at, last = self._printed.get(key, (-REPEAT_SECONDS, ""))
            if now >= at + REPEAT_SECONDS and text != last:
                self._printed[key] = now, text
                lines.append(text)
        return lines


async def show_while(client: Client, work: Coroutine[Any, Any, T], quiet: bool) -> T:
    """Return the result of `work`, and show the images meanwhile unless `quiet` is set."""
    running = asyncio.ensure_future(work)
    shower = None if quiet else asyncio.ensure_future(_show(client))
    try:
        return await running
    finally:
        tasks = [task for task in (running, shower) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(client: Client) -> None:
    """Show the images until the task is cancelled."""
    lines, loop = ImageLines(), asyncio.get_running_loop()
    live = None
    if output.on_terminal():
        live = Live(console=output.console(), refresh_per_second=REFRESH_PER_SECOND, transient=True)
        live.start()
    try:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            with contextlib.suppress(NoDaemon, ApiFailure):
                images = (await client.status()).images
                if live is not None:
                    live.update(draw_bars([image_bar(image) for image in images]))
                else:
                    for line in lines.new_lines(images, loop.time()):
                        output.print_line(line)
    finally:
        if live is not None:
            live.stop()
