"""Write docs/openapi.json: the API in OpenAPI 3.1.

Run `python -m docs.openapi` after a route or a type of the API was changed; a unit test checks that
the file is up to date.
"""

import json
from pathlib import Path
from typing import Final

from meshd.api.openapi import describe
from meshd.api.route_table import ROUTES

FILE: Final = Path(__file__).with_name("openapi.json")


def render() -> str:
    """Return the whole file."""
    return json.dumps(describe(ROUTES, with_specs=False), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
