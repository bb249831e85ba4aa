"""Server names to services."""

import pytest

from proxy.worker.client_hello_reader import find_service

SERVICES = {"a.test": "exact", "*.test": "any", "*.eu.test": "longer"}


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("a.test", "exact"),
        ("b.test", "any"),
        ("a.b.test", "any"),
        ("x.eu.test", "longer"),
        ("eu.test", "any"),
        ("test", None),
        ("a.tests", None),
        ("", None),
        (".test", "any"),
        ("a." * 126 + "test", None),
        ("a." * 125 + "test", "any"),
    ],
)
def test_exact_names_come_first_then_the_longest_suffix(name: str, service: str | None) -> None:
    assert find_service(SERVICES, name) == service
