"""What `meshd up` says about clear text between nodes."""

from meshd.control.deploy.node_warnings import find_node_warnings
from meshd.model.runtime import Node
from meshd.spec.model import Network, Project, Service

WEB = Service(name="web", networks=("front", "back"))
PROJECT = Project(
    name="shop",
    services=(WEB, Service(name="api"), Service(name="db", plain=True, networks=("other",))),
    networks=(Network(name="front"), Network(name="back", driver_opts={"encrypted": ""})),
)
OPEN = (
    "networks default, front are not encrypted: calls by name (http://NAME) leave a node in clear "
    'text; calls by MESH_URL_NAME do not. Encrypt with driver_opts: {encrypted: ""}'
)


def nodes(*, needed: bool, **proxies: bool) -> list[Node]:
    return [Node(name, 1.0, 1, has_proxy=has, needs_proxy=needed) for name, has in proxies.items()]


def test_nodes_without_a_proxy() -> None:
    assert find_node_warnings(PROJECT, nodes(needed=True, m1=True, w1=False, w2=False)) == (
        "nodes w1, w2 have no proxy: run `meshd node join` there; mesh-managed services are not "
        "placed there without one",
        OPEN,
    )
    assert find_node_warnings(PROJECT, nodes(needed=False, m1=True, w1=False)) == (
        "calls to and from w1 are in clear text (--allow-clear-text): run `meshd node join` there",
        OPEN,
    )
    assert find_node_warnings(PROJECT, nodes(needed=True, m1=True, w1=True)) == (OPEN,)


def test_where_there_is_nothing_to_say() -> None:
    assert find_node_warnings(PROJECT, nodes(needed=True, m1=True)) == ()
    plain = Project(name="shop", services=(Service(name="db", plain=True),))
    assert find_node_warnings(plain, nodes(needed=True, m1=True, w1=False)) == ()
    encrypted = Project(name="shop", services=(WEB,), networks=(
        Network(name="front", external=True), PROJECT.networks[1],
    ))  # fmt: skip
    assert find_node_warnings(encrypted, nodes(needed=True, m1=True, w1=True)) == ()
