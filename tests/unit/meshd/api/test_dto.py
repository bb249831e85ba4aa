"""The JSON names of the API are a contract, whatever the Python names are."""

import msgspec
import pytest

from meshd.api.dto import DeployResult, PlanPreview, ProjectStatus, ServiceStatus
from meshd.model.base import RequestBody, Value


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (ServiceStatus("shop", "web", 3, 2, 1, 1, 5, "r1"), {"wanted", "coming", "trial", "stage"}),
        (ProjectStatus("shop", "up", 1, 2, 3), {"name", "services", "ready", "wanted", "who"}),
        (DeployResult("shop", True, True), {"done", "ok", "detail", "plan", "releases", "lacks"}),
        (PlanPreview("start web"), {"plan", "outlook", "lacks"}),
    ],
)
def test_json_names_stay(value: Value, names: set[str]) -> None:
    encoded = msgspec.json.encode(value)
    assert names <= set(msgspec.json.decode(encoded))
    assert msgspec.json.decode(encoded, type=type(value)) == value


class _Response(Value, frozen=True):
    known: int


class _Request(RequestBody, frozen=True):
    known: int


def test_a_response_may_have_unknown_fields_and_a_request_may_not() -> None:
    text = b'{"known": 1, "later": 2}'
    assert msgspec.json.decode(text, type=_Response).known == 1
    with pytest.raises(msgspec.ValidationError, match="unknown field `later`"):
        msgspec.json.decode(text, type=_Request)
