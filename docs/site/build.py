"""Build the site from the pages of `docs/`: `python -m docs.site.build [FOLDER]`, or `make docs`.

The default folder is build/site. Each warning, such as a link that leads nowhere, is an error.
"""

import sys
from pathlib import Path
from typing import Final

from sphinx.cmd.build import build_main

from docs.site.outside import find_outside_resources
from docs.site.stage import ROOT, stage

TARGET: Final = ROOT / "build" / "site"
STAGED: Final = ROOT / "build" / "site-source"
SETTINGS: Final = Path(__file__).parent


def main() -> int:
    """Return the exit code."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    stage(STAGED)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--jobs", "2", "--fresh-env"]
    code = build_main([*options, "-c", str(SETTINGS), str(STAGED), str(target)])
    if code:
        return code
    for found in find_outside_resources(target):
        sys.stderr.write(f"loaded from outside: {found}\n")
        code = 1
    if code == 0:
        sys.stdout.write(f"open {target / 'index.html'}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
