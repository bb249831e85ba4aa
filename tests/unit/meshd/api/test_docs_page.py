"""docs/api.md lists all operations of the API, and docs/openapi.json describes them."""

import json
import re

from docs import openapi
from meshd.api.openapi import describe
from meshd.api.route_table import ROUTES
from tests.support.paths import ROOT


def test_the_page_lists_every_operation_with_its_role() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    found = re.findall(r"^\| `([A-Z]+) (/[^`? ]+).*\| (\w+) \|$", page, re.MULTILINE)
    listed = {tuple(match) for match in found}
    listed.add(("GET", "/status", "view"))
    assert listed == {(route.method, route.path, route.role) for route in ROUTES}


def test_the_description_is_up_to_date() -> None:
    assert openapi.FILE.read_text() == openapi.render(), "run `python -m docs.openapi`"


def test_every_reference_of_the_description_leads_to_a_schema() -> None:
    document = describe(ROUTES)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids) == len(ROUTES)
