"""The files of the page, as `web/build.py` wrote them to `static/`. Read by `page`.

They are kept in memory: less than 300 kB. A name in `assets/` has a hash of the content, so that a
browser may keep the file for ever.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).with_name("static")
"""Where the built page is."""
INDEX: Final = "index.html"
BUILD_HINT: Final = "the web page was not built; from a clone, `make page` builds it"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its media type, its content, and the content compressed with gzip."""

    media: str
    content: bytes
    compressed: bytes


def load_assets(folder: Path = STATIC) -> Mapping[str, Asset]:
    """Return the files by their path on the server, without the first slash; empty if the page was
    not built."""
    if not (folder / INDEX).is_file():
        return {}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            content = path.read_bytes()
            found[path.relative_to(folder).as_posix()] = Asset(
                _TYPES[path.suffix], content, gzip.compress(content, mtime=0)
            )
    return found
