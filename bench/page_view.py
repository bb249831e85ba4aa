"""What a browser needs for the web page: time to the first view, and frames while all changes.

Called by `bench.page --browser`, which runs the page over a simulated mesh. Debian's Chromium opens
it; the figures are those of the Performance API of the page itself.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tests.support.browser import open_page

WATCH: Final = """
window.longTasks = [];
new PerformanceObserver(list => window.longTasks.push(...list.getEntries().map(e => e.duration)))
  .observe({type: 'longtask', buffered: true});
"""
COMPLETE: Final = """count => {
  const table = document.querySelector('table.services');
  const rows = table?.querySelectorAll('tbody tr .spark path');
  return table?.ariaRowCount == count + 1 && rows.length > 0 && performance.now();
}"""
"""The table has all services, and the sparklines are drawn."""
FRAMES: Final = """milliseconds => new Promise(done => {
  const frames = [], tasks = window.longTasks.length;
  let last = performance.now();
  const end = last + milliseconds;
  const next = now => {
    frames.push(now - last);
    last = now;
    now < end ? requestAnimationFrame(next)
      : done({frames, tasks: window.longTasks.slice(tasks), nodes: document.all.length});
  };
  requestAnimationFrame(next);
})"""


async def first_view(sign_in: Callable[[], str], services: int) -> tuple[list[float], list[float]]:
    """Return milliseconds from the start of the navigation to all rows, by a link that signs in,
    and by a reload."""
    signed, again = [], []
    for _ in range(3):
        async with open_page() as page:
            await page.goto(sign_in(), wait_until="commit")
            found = await page.wait_for_function(COMPLETE, arg=services, polling="raf")
            signed.append(await found.json_value())
            await page.reload(wait_until="commit")
            found = await page.wait_for_function(COMPLETE, arg=services, polling="raf")
            again.append(await found.json_value())
    return signed, again


async def watch_frames(
    sign_in: Callable[[], str], step: Callable[[], None], service: str, seconds: int
) -> list[tuple[str, dict[str, Any]]]:
    """Return the frames of each view, in milliseconds, and its tasks over 50 ms; `step` sends an
    update and is called once a second. `service` is the key of the service that is shown."""

    async def send() -> None:
        while True:
            await asyncio.sleep(1.0)
            step()

    sender = asyncio.create_task(send())
    found = []
    try:
        async with open_page() as page:
            await page.add_init_script(WATCH)
            await page.goto(sign_in())
            views = ("", "map", "nodes", f"services/{service}", f"services/{service}/replicas")
            for view in views:
                await page.evaluate("view => { location.hash = '#/' + view }", view)
                await page.wait_for_timeout(2500)
                found.append((f"#/{view}", await page.evaluate(FRAMES, seconds * 1000)))
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
    return found


def print_view(signed: list[float], again: list[float]) -> None:
    """Print the times of the first view."""
    for name, times in (("first view, by a link that signs in", signed), ("reload", again)):
        print(f"{name}: median {sorted(times)[len(times) // 2]:.0f} ms of {len(times)}")


def print_frames(found: list[tuple[str, dict[str, Any]]]) -> None:
    """Print the frames of each view."""
    print(f"{'view':32} {'frames/s':>8} {'p99 ms':>8} {'longest':>8} {'long tasks':>13} elements")
    for view, values in found:
        frames = sorted(values["frames"])
        longest = max(values["tasks"], default=0.0)
        print(
            f"{view:32} {1e3 * len(frames) / sum(frames):8.1f}"
            f" {frames[int(len(frames) * 0.99)]:8.1f} {frames[-1]:8.1f}"
            f" {len(values['tasks']):4} ({longest:3.0f} ms) {values['nodes']:9}"
        )
