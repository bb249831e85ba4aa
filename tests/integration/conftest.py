"""What several of these tests stand on."""

from collections.abc import Iterator

import pytest

from tests.support.raw_http import Stage, staged


@pytest.fixture(scope="module")
def one_stage() -> Iterator[Stage]:
    """A proxy before a scripted origin, for all tests of a module."""
    with staged() as running:
        yield running


@pytest.fixture
def stage(one_stage: Stage) -> Iterator[Stage]:
    """The same for one test, whose scripts must have gone as they were written."""
    yield one_stage
    assert one_stage.errors() == []
