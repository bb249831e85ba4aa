"""docs/api.md lists all operations of the API."""

import re

from meshd.api.handlers import Handlers
from tests.fakes.control import FakeControl
from tests.support.paths import ROOT


def test_the_page_lists_every_operation() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = {tuple(match) for match in re.findall(r"^\| `([A-Z]+) (/[^`? ]+)", page, re.MULTILINE)}
    listed.add(("GET", "/status"))
    routes = Handlers(FakeControl()).all_routes()
    assert listed == {(route.method, route.path) for route in routes}
