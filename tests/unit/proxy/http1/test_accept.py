"""In which form a client would have an error."""

import pytest

from proxy.http1.accept import prefers_json


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/html, */*;q=0.8", False),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"application/*", True),
        (b"application/json, text/plain, */*", True),
        (b"application/json, */*;q=0.1", True),
        (b"text/plain;q=0.5, application/json", True),
        (b"text/html, application/json;q=0.1", True),
        (b"text/plain, application/json;q=0.5", False),
        (b"application/json;q=0.5, */*;q=0.8", False),
        (b"application/json;q=0", False),
        (b"application/json;q=0, */*", False),
        (b"application/json ; q=0.000, text/*", False),
        (b"application/json;q=high", False),
        (b"application/json;q=nan", False),
        (b"json", False),
        (b",;/=,,", False),
    ],
)
def test_the_better_of_two_forms_is_sent(accept: bytes, json: bool) -> None:
    assert prefers_json(accept) is json
