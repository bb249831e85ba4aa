"""Labels as pairs and as text."""

from meshd.telemetry.exposition.labels import NO_LABELS


def test_labels_grow_by_one() -> None:
    one = NO_LABELS.add("service", "shop/orders")
    two = one.add("code", 'a"b')
    assert one == ((("service", "shop/orders"),), 'service="shop/orders"')
    assert two.pairs == (("service", "shop/orders"), ("code", 'a"b'))
    assert two.text == 'service="shop/orders",code="a\\"b"'
