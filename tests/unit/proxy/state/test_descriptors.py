"""How many descriptors are left for clients, and which errors mean that none is left."""

import errno
import os

import pytest

from proxy.state.descriptors import SMALLEST_RESERVE, Descriptors, is_shortage


@pytest.mark.parametrize(("limit", "reserve"), [(16, SMALLEST_RESERVE), (120, 30), (4096, 1024)])
def test_a_part_is_kept_free_of_clients(limit: int, reserve: int) -> None:
    descriptors = Descriptors(limit)
    assert descriptors.room(0) == limit - reserve
    assert descriptors.burst < reserve
    descriptors.count_to_endpoints(3)
    assert descriptors.room(2) == limit - reserve - 5


def test_other_descriptors_count_too() -> None:
    descriptors = Descriptors(1000)
    before = descriptors.room(0)
    descriptors.measure(0, 1.0)
    used = before - descriptors.room(0)
    assert used >= 3
    pipe = os.pipe()
    try:
        descriptors.measure(0, 1.5)
        assert before - descriptors.room(0) == used
        descriptors.measure(0, 2.5)
        assert before - descriptors.room(0) == used + 2
    finally:
        for each in pipe:
            os.close(each)


@pytest.mark.parametrize(
    ("number", "answered", "expected"),
    [
        (errno.EMFILE, False, True),
        (errno.ENFILE, True, True),
        (errno.ECONNREFUSED, True, False),
        (errno.EADDRNOTAVAIL, True, True),
        # A machine without IPv6 says this of an IPv6 address.
        (errno.EADDRNOTAVAIL, False, False),
    ],
)
def test_what_is_a_shortage(number: int, answered: bool, expected: bool) -> None:
    assert is_shortage(OSError(number, "x"), answered=answered) is expected
