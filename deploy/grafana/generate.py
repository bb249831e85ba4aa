"""Write the Grafana dashboards in `dashboards/` from their description in `boards`.

Run `python -m deploy.grafana.generate` after a change; a test checks that the files are up to date.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.grafana.boards import BOARDS

FOLDER: Final = Path(__file__).with_name("dashboards")


def render() -> Mapping[str, str]:
    """Return the text of each file by its name."""
    return {
        f"{name}.json": json.dumps(board.render(), indent=1, ensure_ascii=False) + "\n"
        for name, board in BOARDS.items()
    }


if __name__ == "__main__":
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
