"""Debian's Chromium for tests of the web page, driven by Playwright, with axe-core in it.

`make page` installs both; tests that need them have the mark `page`.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = ROOT / "build" / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}


def page_problem() -> str | None:
    """Return why tests of the page cannot run here; None if they can."""
    from meshd.ui.assets import load_assets

    if not load_assets() or not AXE.is_file():
        return "the web page was not built (`make page`)"
    if shutil.which("chromium") is None:
        return "chromium is not installed"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed (`make page`)"
    return None


@asynccontextmanager
async def open_page() -> AsyncIterator[Any]:
    """Open an empty page in a new browser with an empty profile. What the page logs as an error
    fails the test at the end."""
    from playwright.async_api import async_playwright

    problems: list[str] = []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=ARGUMENTS,
            # The driver would wait for the debugger's port of a measured child process.
            env={key: value for key, value in os.environ.items() if "COV" not in key},
        )
        try:
            page = await browser.new_page(viewport=DESKTOP)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda each: each.type == "error" and problems.append(each.text))
            yield page
        finally:
            await browser.close()
    assert not problems, problems


async def violations(page: Any) -> list[str]:
    """Return the rules of axe-core that the page violates, with the elements."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE.read_text())
    found = await page.evaluate(
        "async () => (await axe.run({resultTypes: ['violations']})).violations"
    )
    return [
        f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for each in found
        for node in each["nodes"]
    ]


async def take_screenshot(page: Any, name: str) -> Path:
    """Store what the page shows, for people, in build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    await page.screenshot(path=path)
    return path
