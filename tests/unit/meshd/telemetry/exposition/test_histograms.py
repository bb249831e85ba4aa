"""Classic and native buckets from those of the proxy."""

import pytest

from meshd.telemetry.exposition.histograms import (
    EDGES,
    exemplars_by_edge,
    exposed_buckets,
    native_buckets,
)
from meshd.telemetry.merge import Distribution
from proxy.wire.report import Exemplar


def distribution(*seconds: float) -> Distribution:
    made = Distribution()
    for value in seconds:
        made.observe(value)
    return made


def test_without_values_there_is_no_native_bucket() -> None:
    assert native_buckets(Distribution()) == ((), ())


def test_near_buckets_share_a_span_and_far_ones_start_another() -> None:
    assert native_buckets(distribution(1.0, 1.0, 1.2)).spans == ((1, 3),)
    near = native_buckets(distribution(1.0, 1.0, 1.2))
    assert near.deltas == (2, -2, 1)
    far = native_buckets(distribution(0.001, 1.0))
    assert far.spans == ((-78, 1), (78, 1))
    assert far.deltas == (1, 0)


@pytest.mark.parametrize("seconds", [0.0, 0.0033, 0.017, 0.05, 0.9999, 7.3, 900.0])
def test_a_native_bucket_holds_its_value(seconds: float) -> None:
    ((index, _),) = native_buckets(distribution(seconds)).spans
    assert seconds <= 2 ** (index / 8)
    assert seconds == 0.0 or seconds > 2 ** ((index - 2) / 8)


def test_classic_buckets_are_cumulative() -> None:
    found = dict(exposed_buckets(distribution(0.0005, 0.004, 90.0)))
    assert found[0.001] == 1
    assert found[0.005] == 2
    assert found[60.0] == 2
    assert found[float("inf")] == 3


def test_the_newest_exemplar_of_a_bucket_is_kept_under_the_edge_that_holds_it() -> None:
    old, new, slow = (
        Exemplar("a", 0.003, 1.0),
        Exemplar("b", 0.005, 2.0),
        Exemplar("c", 61.0, 1.0),
    )
    assert exemplars_by_edge((new, old, slow)) == {2: new, len(EDGES): slow}
