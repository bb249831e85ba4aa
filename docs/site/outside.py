"""Find what a page of the built site would load from another host.

`docs.site.build` calls it: the site is read without a network, for example in an outage. Links
that a reader follows are fine.
"""

import re
from pathlib import Path
from typing import Final

LOADED: Final = {
    ".html": re.compile(
        r"<(?:script|img|iframe|source|link|video)\b[^>]*?\s(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    ),
    ".css": re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)"),
}
"""Suffix of a file → the addresses that it loads."""


def find_outside_resources(folder: Path) -> list[str]:
    """Return `FILE: ADDRESS` for each, sorted."""
    return sorted(
        f"{path.relative_to(folder).as_posix()}: {address}"
        for path in folder.rglob("*")
        if path.suffix in LOADED
        for address in LOADED[path.suffix].findall(path.read_text(encoding="utf-8"))
    )
