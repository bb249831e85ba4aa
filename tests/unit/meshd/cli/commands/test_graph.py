"""`meshd graph`: edges with rates from two looks at the metrics."""

from meshd.cli.commands.graph import OUTSIDE, Edge, format_dot, format_tree, make_edges, parse_calls


def test_calls_and_requests_from_outside_are_separate() -> None:
    text = (
        'meshd_calls_total{service="shop/pay",caller="shop/web"} 30\n'
        'meshd_requests_total{service="shop/pay",method="GET",code="2xx"} 25\n'
        'meshd_requests_total{service="shop/pay",method="POST",code="2xx"} 5\n'
        'meshd_requests_total{service="shop/web",method="GET",code="2xx"} 40\n'
    )
    assert parse_calls(text) == {("shop/web", "shop/pay"): 30.0, (OUTSIDE, "shop/web"): 40.0}


def test_rates_are_differences() -> None:
    before = {("a", "b"): 10.0, ("a", "c"): 5.0}
    after = {("a", "b"): 16.0, ("a", "c"): 2.0, ("x", "b"): 3.0}
    assert make_edges(before, after, 2.0) == [
        Edge("a", "b", 3.0, 16.0),
        Edge("x", "b", 1.5, 3.0),
        Edge("a", "c", 0.0, 2.0),  # a worker has started again
    ]


EDGES = [
    Edge(OUTSIDE, "shop/web", 9.0, 90),
    Edge("shop/web", "shop/pay", 4.0, 40),
    Edge("shop/web", "shop/stock", 2.0, 20),
    Edge("shop/stock", "shop/pay", 1.0, 10),
    Edge("shop/pay", "shop/bank", 1.0, 10),
]


def test_a_tree_starts_outside_and_expands_each_service_once() -> None:
    assert format_tree(EDGES, several=False) == [
        "outside",
        "  → web  9.0/s",
        "    → pay  4.0/s",
        "      → bank  1.0/s",
        "    → stock  2.0/s",
        "      → pay  1.0/s  (above)",
    ]


def test_a_circle_is_shown() -> None:
    circle = [Edge("p/a", "p/b", 1.0, 1), Edge("p/b", "p/a", 1.0, 1)]
    lines = format_tree(circle, several=True)
    assert lines == ["p/a", "  → p/b  1.0/s", "    → p/a  1.0/s  (above)"]


def test_the_graph_for_graphviz() -> None:
    text = format_dot([Edge('p/"a', "p/b", 1.25, 1)], several=True)
    assert '"p/\\"a" -> "p/b" [label="1.2/s"];' in text
    assert text.startswith("digraph")
