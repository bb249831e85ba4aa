"""Fixtures that several integration tests share."""

from collections.abc import Iterator

import pytest

from tests.support.raw_http import Stage, staged


@pytest.fixture(scope="module")
def one_stage() -> Iterator[Stage]:
    """A proxy in front of a scripted origin, for all tests of a module."""
    with staged() as running:
        yield running


@pytest.fixture
def stage(one_stage: Stage) -> Iterator[Stage]:
    """The same for one test; fails it if one of its scripts failed."""
    yield one_stage
    assert one_stage.errors() == []
